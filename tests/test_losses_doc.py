"""docs/losses.md has a row for each loss, with what the loss declares that it needs."""

from toys import ROOT

from utils.losses.options import LOSSES

TEXT = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")


def rows():
    """name -> the cells behind its equation and source, of the tables of losses."""
    found = {}
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[0] not in ("name", "---"):
            assert cells[0] not in found
            found[cells[0]] = cells[3:]
    return found


def test_the_table_has_each_loss_with_its_needs():
    declared = {}
    for name, loss in LOSSES.items():
        options = ", ".join(f"`--{option}`" for option in loss.options) or "none"
        declared[name] = [f"{loss.unit}, {loss.data}", "yes" if loss.reference else "no", options]
    assert {name: needs[:3] for name, needs in rows().items()} == declared
    assert all(needs[3] for needs in rows().values())
