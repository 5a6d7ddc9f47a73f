import sys
from pathlib import Path

# `batches` is shared by several test folders and is no package of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)
