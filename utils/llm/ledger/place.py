"""The kind of file system that a ledger lies on: SQLite's write-ahead log needs memory that all its processes share,
which those of two machines have not (https://www.sqlite.org/wal.html)."""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
# Types as Linux names them; those of FUSE have a prefix, as fuse.sshfs.
NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "panfs", "pvfs2", "s3fs", "gcsfuse", "rclone", "juicefs", "smb3", "smbfs", "sshfs", "wekafs",
}  # fmt: skip


def network_type(path: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the network file system that holds a file, as nfs4; None for a local one, and where the system
    does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = path.resolve()
    except OSError:
        return None
    found, kind = Path(), ""
    for line in lines:
        _, mounted, type_, *_ = line.split()
        # A blank in a path is written as its octal code.
        point = Path(mounted.replace("\\040", " "))
        # Of two mounts at one point the later one is seen.
        if place.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, type_
    kind = kind.removeprefix("fuse.")
    if kind in NETWORK:
        return kind
    return None
