"""The code cells in the source of a chapter."""

import re

# Its options are a block of YAML between lines of three dashes, or lines like ":tags: [claim]".
CELL = re.compile(
    r"^(?P<head>```\{code-cell\}.*\n)"
    r"(?P<options>---\n(?s:.*?)^---\n|(?::.*\n)*)"
    r"(?P<code>(?s:.*?))"
    r"(?P<end>^```$)",
    re.M,
)
