"""update_docs.py FILE SECTION: replaces what stands between <!-- SECTION begin --> and <!-- SECTION end --> in FILE by
standard input, which is printed too."""
import pathlib
import re
import sys


def main():
    path, section = pathlib.Path(sys.argv[1]), sys.argv[2]
    table = sys.stdin.read()
    print(table, end="")
    if not table.strip():
        sys.exit(f"nothing was measured: {path} is left as it was")
    begin, end = f"<!-- {section} begin -->\n", f"<!-- {section} end -->"
    text = path.read_text(encoding="utf-8")
    new, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + table + end, text, flags=re.S)
    if count != 1:
        sys.exit(f"{path} has {count} sections named {section}")
    path.write_text(new, encoding="utf-8")


main()
