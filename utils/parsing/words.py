"""The words of verdicts in English, German, French, Spanish and Chinese, by the part that each plays in a clause.

A clause is read as a verdict only if every word of it is listed here: "not", "if" and the names of aspects are left out
on purpose, so that "Rating: not a 6" or "Accuracy rating: 6" is no rating. A part is a single character: the grammar of
utils/parsing/letters.py is a pattern over such characters.
"""

from __future__ import annotations

NEUTRAL, IS, FINAL, LABEL, VERB = "n", "i", "f", "l", "v"
NOUN, BETTER, WORSE, THAN, WINS, ABOVE = "N", "b", "w", "t", "W", ">"

# Words with a space are read as one word.
_COMMON = {
    NEUTRAL: """the a an this that it its it's that's my i i'd i'll i'm we so therefore thus hence then
        also here now clear believe think find say however nevertheless still in_my_opinion in_my_view
        with_that_in_mind as_follows ich der die das den dem des diese dieser dieses eine einen einer ein meine
        mein also daher somit meiner jedoch allerdings je j' la le les l' un une cette cet ce ma mon donc
        cependant toutefois yo el los esta este esto mi una por_tanto por_lo_tanto sin_embargo 我 的 这 这个 个 会
        认为 觉得 所以 因此""",
    IS: """is are be : = lautet ist est es 是 为""",
    FINAL: """final finally overall overall_quality in_conclusion in_summary in_total in_short all_in_all
        on_balance on_the_whole all_things_considered as_it_stands in_the_end in_general conclusion gesamt
        insgesamt endgültig endgültige abschließend abschließende fazit im_ergebnis finale globale global
        en_conclusion au_total conclusión en_conclusión en_general en_resumen 最终 总体 综合 总的来说 综上所述
        总之""",
}
_RATING = {
    NEUTRAL: """would will würde of for from me as to response answer summary reply output result full solid  points
        point star stars taking_everything_into_account antwort zusammenfassung punkte punkten punkt sterne mit
        von als ergebnis réponse résumé de à lui points étoiles respuesta resumen le a de puntos estrellas 回答
        答案 摘要 分 颗星 星""",
    LABEL: """rating score grade verdict scaleofrating assessment evaluation bewertung note gesamtnote gesamtbewertung
        punktzahl wertung gesamtwertung évaluation calificación puntuación nota valoración 评分 得分 分数 总分
        总评""",
    VERB: """rate give giving assign award deserves earns merits gets receives bewerte bewerten gebe geben vergebe
        verdient bekommt je_donne je_lui_donne je_donnerais je_lui_donnerais j'attribue mérite doy daría otorgo
        merece asigno pongo 给 打 评""",
}
_LETTERS = {
    IS: """is_for goes_to provides offers does gives""",
    NEUTRAL: """i_would i_will we_would
        ich_würde one two they responses answers clearly slightly much far significantly somewhat definitely
        marginally considerably strictly in_every_respect in_every_way in_all_respects by_far deutlich etwas viel
        klar eindeutig wesentlich nettement clairement légèrement bien claramente ligeramente mucho en 明显 略 稍
        要""",
    NOUN: """answer response output summary option reply assistant candidate completion model version job antwort
        zusammenfassung réponse résumé respuesta resumen opción 回答 答案 选项 摘要 回复 助手""",
    LABEL: """verdict winner preference decision judgment judgement vote my_answer my_final_answer
        my_answer_would my_choice_would
        my_pick_would the_answer
        the_final_answer choice selection result aspect respect urteil gewinner sieger entscheidung wahl verdict
        gagnant gagnante préférence choix décision veredicto ganador ganadora preferencia elección decisión 结论
        胜者 结果 判断""",
    VERB: """prefer choose pick select favor favour go_with bevorzuge wähle préfère choisis prefiero elijo escojo
        选择 选 偏好 更喜欢""",
    BETTER: """better best preferable superior stronger preferred favored favoured chosen to_be_preferred
        should_be_preferred besser bessere beste besten bevorzugte bevorzugt überlegen meilleure meilleur
        préférable supérieure préférée mejor preferible preferida 更好 更优 较好 更佳 好""",
    WORSE: """worse inferior weaker schlechter schlechtere unterlegen pire inférieure peor 更差 较差""",
    THAN: """than over to rather_than instead_of als gegenüber que qu' à 比""",
    ABOVE: """> ≻""",
    WINS: """wins beats outperforms edges_out gewinnt schlägt übertrifft gagne l'emporte surpasse gana supera 优于
        胜过 胜出""",
}
_ORDER = {
    NEUTRAL: """of answers responses summaries best first as them they ranked ordered""",
    LABEL: """order ranking rank verdict reihenfolge rangfolge rangliste ordre classement orden clasificación
        ranking 排序 排名 顺序 from_best_to_worst best_to_worst""",
}
_BECAUSE = "because since due given weil da denn car parce puisque porque ya"
_CONDITIONS = """if unless provided assuming when where otherwise wenn falls sofern ansonsten sonst si sauf sinon salvo
    如果 假如 若 要是 的话"""
BECAUSE, CONDITIONS = frozenset(_BECAUSE.split()), frozenset(_CONDITIONS.split())


def _vocabulary(*tables: dict[str, str]) -> dict[str, str]:
    part_of = {}
    for table in tables:
        for part, words in table.items():
            for word in words.split():
                part_of[word.replace("_", " ")] = part
    return part_of


RATING_WORDS = _vocabulary(_COMMON, _RATING)
LETTER_WORDS = _vocabulary(_COMMON, _LETTERS)
ORDER_WORDS = _vocabulary(_COMMON, _ORDER)

# Headings over what is said of one aspect alone.
ASPECTS = frozenset(
    word
    for words in (
        "accuracy correctness clarity helpfulness honesty harmlessness completeness relevance coherence",
        "creativity safety truthfulness conciseness brevity fluency usefulness factuality grammar",
        "structure readability style tone depth detail",
        "empathy engagement pedagogy guidance politeness quality originality adherence faithfulness coverage",
        "genauigkeit richtigkeit klarheit vollständigkeit stil ton exactitude clarté précision cohérence précisión",
        "precisión claridad exactitud coherencia 准确性 清晰度 完整性 相关性",
    )
    for word in words.split()
)
