# SPDX-License-Identifier: Apache-2.0
"""The script in doc/pytorch.md, as it stands there."""

import os

from shared import run

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../doc/pytorch.md")


def test_from_import_to_second_generation():
    with open(PAGE, encoding="utf-8") as page:
        code = page.read().partition("<!-- generate.py")[2].partition("```python\n")[2].partition("```")[0]
    assert run(code, PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True") == "the same\n"
