"""Plain text in unknown encodings: how many come back exactly, against charset-normalizer and a fixed cp1252.

Texts are sentences of the Universal Declaration of Human Rights, in the encodings that were usual for their language.

python benchmarks/extract_encodings.py
"""

from __future__ import annotations

from collections.abc import Callable

from doctune.text.extract import ExtractSettings, extract

TEXTS = {
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen. Jeder hat Anspruch auf die Rechte "
    "ohne Unterschied.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison "
    "et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité. Chacun "
    "peut s’en prévaloir.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de "
    "razón y conciencia, deben comportarse fraternalmente los unos con los otros. Ningún niño será "
    "sometido a condición alguna.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni "
    "rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa. Każdy człowiek posiada "
    "wszystkie prawa.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím "
    "a mají spolu jednat v duchu bratrství. Každý má všechna práva a všechny svobody stanovené touto "
    "deklarací.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и "
    "совестью и должны поступать в отношении друг друга в духе братства. Каждый человек должен обладать "
    "всеми правами.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
    "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα "
    "αδελφοσύνης.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler. Herkes ırk, renk, cinsiyet, dil "
    "ayrımı gözetilmeksizin.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם "
    "לנהוג איש ברעהו ברוח של אחווה. כל אדם זכאי לזכויות ולחירויות שנקבעו בהכרזה זו ללא הפליה כלשהי.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良"
    "心とを授けられており、互いに同胞の精神をもって行動しなければならない。すべて人は、いかなる事由による"
    "差別をも受けることなく。",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神互相对待。人人有资格享有"
    "本宣言所载的一切权利和自由。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 "
    "양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다. 모든 사람은 이 선언에 규정된 모든 "
    "권리와 자유를 향유할 자격이 있다.",
}  # fmt: skip
UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
LEGACY = {
    "de": ("cp1252", "iso8859-1"), "fr": ("cp1252",), "es": ("cp1252", "iso8859-1"), "pl": ("cp1250", "iso8859-2"),
    "cs": ("cp1250", "iso8859-2"), "ru": ("cp1251", "koi8-r", "cp866"), "el": ("cp1253", "iso8859-7"),
    "tr": ("cp1254", "iso8859-9"), "he": ("cp1255",), "ja": ("shift_jis", "euc-jp", "iso2022-jp"),
    "zh": ("gb18030", "gbk"), "ko": ("euc-kr", "cp949"),
}  # fmt: skip
REPEATS = (1, 3, 20)


def main() -> None:
    """Print the share of exact decodings, overall and for the legacy encodings alone."""
    print(f"{'decoder':24}{'all':>16}{'unicode':>16}{'legacy':>16}")
    for name, decode in (("doctune", _doctune), ("charset-normalizer", _charset_normalizer), ("cp1252", _cp1252)):
        unicode_ok, unicode_all, _ = _score(decode, dict.fromkeys(TEXTS, UNICODE))
        legacy_ok, legacy_all, missed = _score(decode, LEGACY)
        shares = [
            (unicode_ok + legacy_ok, unicode_all + legacy_all),
            (unicode_ok, unicode_all),
            (legacy_ok, legacy_all),
        ]
        print(f"{name:24}" + "".join(f"{f'{ok}/{count} {ok / count:.0%}':>16}" for ok, count in shares))
        if name == "doctune":
            print(f"    missed: {', '.join(missed) or 'none'}")


def _score(decode: Callable[[bytes], str], encodings: dict[str, tuple[str, ...]]) -> tuple[int, int, list[str]]:
    """Exact decodings, attempts, and what was missed."""
    missed = []
    count = 0
    for language, names in encodings.items():
        for name in names:
            for repeats in REPEATS:
                text = "\n".join([TEXTS[language]] * repeats)
                count += 1
                if decode(text.encode(name)) != text:
                    missed.append(f"{language}/{name}/x{repeats}")
    return count - len(missed), count, missed


def _doctune(content: bytes) -> str:
    return extract(content, ExtractSettings(max_chars=None, normalise=False)).text.removeprefix("\ufeff")


def _charset_normalizer(content: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    return str(best).removeprefix("\ufeff") if best else ""


def _cp1252(content: bytes) -> str:
    return content.decode("cp1252", "replace")


if __name__ == "__main__":
    main()
