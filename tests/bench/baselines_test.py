"""baselines on the smallest size: a row and a curve of each mixer, rates above 0, and what state takes, counted by hand."""
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

with tempfile.TemporaryDirectory() as folder:
    svg = pathlib.Path(folder, "plot.svg")
    out = subprocess.run([sys.argv[1], "--hidden_size=256", "--num_layers=2", "--max_context=2048", "--seconds=0.01", f"--svg={svg}"],
                         check=True, capture_output=True, text=True).stdout
    rows = {line.split(" | ")[0].strip("| "): [cell.strip() for cell in line.strip("| ").split("|")]
            for line in out.splitlines() if line.startswith("| ")}
    assert list(rows) == ["mixer", "Sessa", "attention", "Mamba-2"], out
    for name in list(rows)[1:]:
        assert len(rows[name]) == len(rows["mixer"]) == 9 and all(float(rate) > 0 for rate in rows[name][5:]), out
    # bf16, D 256, one head of keys and values of 64, two layers: 2 (128 + 2 256) values a token, and 2 128.
    assert (rows["Sessa"][3], rows["attention"][3]) == ("2.5 KiB", "0.5 KiB"), out
    # float32: 8 heads of 64 by 128, and 3 rows of 512 + 2 128.
    assert rows["Mamba-2"][1] == "" and rows["Mamba-2"][2] == f"{2 * 4 * (8 * 64 * 128 + 3 * 768) / 1024:.1f} KiB", out
    plot = xml.etree.ElementTree.parse(svg)
    assert len(re.findall(r"stroke-width", xml.etree.ElementTree.tostring(plot.getroot()).decode())) == 6
