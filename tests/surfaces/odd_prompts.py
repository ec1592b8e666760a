"""Two hundred prompts nobody should have to type: markup, templates, control characters, other scripts, and length."""

__all__ = ["ODD_PROMPTS"]

MARKUP = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "javascript:alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<!--<img src='--><img src=x onerror=alert(1)//'>",
    "<style>*{background:url(//example.org/x)}</style>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "$$\\href{javascript:alert(1)}{x}$$",
    "</textarea><img src=x onerror=alert(1)>",
    "<b>bold</b>",
)
WRAPPED = tuple(f"{before}{text}{after}" for text in MARKUP for before, after in (("a fox ", ""), ("", " at dusk")))
CONTROLS = tuple(f"a{chr(code)}fox" for code in (*range(32), *range(127, 160)))
SCRIPTS = (
    "ثعلب أحمر", "שועל אדום", "一只红色的狐狸", "赤い狐", "붉은 여우", "красная лиса", "κόκκινη αλεπού", "लाल लोमड़ी",
    "🦊" * 50, "e\u0301" * 40, "\u202ea fox", "\u2066a\u2069", "\ufeffa fox", "a\u200bfox", "\ud800", "fox \udfff end",
    "%00%0a%0d", "../../etc/passwd", "CON", "a;b&c=d#e?f", "NaN", "null", "true", "0", "-1e999", "\\",
    "'", '"', "`", "%s%n",
)  # fmt: skip
LONG = ("", " ", "\n\n\n", "x" * 10_000, "fox " * 2_500, "<" * 10_000, "é" * 5_000, "\t" * 300, "a\n" * 400)
SPACED = tuple(f"a fox{' ' * n}" for n in range(36))
ODD_PROMPTS = MARKUP + WRAPPED + CONTROLS + SCRIPTS + LONG + SPACED
