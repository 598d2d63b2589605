"""Style of the page, and its only script: a video plays while the pointer is over it."""

from __future__ import annotations

CSS = """
:root { --ink: #262b33; --faint: #7a808a; --rule: #e4e1d9; --paper: #fbfaf7; --blue: #0072b2; --good: #00795a;
  --bad: #b84f00; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 "Inter", "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 56px 28px 96px; }
h1 { font-size: 34px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 10px; max-width: 24em; }
h2 { font-size: 20px; margin: 56px 0 14px; letter-spacing: -0.01em; }
p.lead { color: var(--faint); font-size: 16.5px; margin: 0 0 30px; max-width: 46em; }
p.note { color: var(--faint); font-size: 13.5px; max-width: 60em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; }
.card { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px; }
.card b { display: block; font-size: 30px; line-height: 1.15; letter-spacing: -0.02em; }
.card span { color: var(--faint); font-size: 13.5px; }
.wide { overflow-x: auto; background: #fff; border: 1px solid var(--rule); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
td .bar + b { display: inline-block; min-width: 3.9em; font-weight: inherit; }
a { color: var(--blue); text-decoration: none; }
th, td { padding: 9px 8px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--faint); font-weight: 500; font-size: 12.5px; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; }
tr.own td { font-weight: 600; background: #f1f7fb; }
td.good { color: var(--good); } td.bad { color: var(--bad); }
.bar { position: relative; display: inline-block; width: 90px; height: 12px; background: #f0eee8; border-radius: 6px;
  vertical-align: -1px; margin-right: 4px; }
.bar i, .bar u { position: absolute; display: block; }
.bar i { left: 0; top: 0; bottom: 0; background: #a9c9de; border-radius: 6px; }
.bar u { top: 5px; height: 2px; background: var(--ink); }
tr.own .bar i { background: var(--blue); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 14px; align-items: start; }
.figures img, .sheet img { width: 100%; display: block; background: #fff; border: 1px solid var(--rule);
  border-radius: 10px; padding: 12px; }
.sheet img { padding: 0; }
figure.full { margin: 0 0 22px; }
figure.full img { width: 100%; display: block; background: #fff; border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px; }
figure.full figcaption { color: var(--faint); font-size: 13.5px; margin-top: 8px; max-width: 70em; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 14px; }
.films figure { margin: 0; background: #fff; border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.films video { width: 100%; display: block; background: #f0eee8; }
.films figcaption { display: flex; justify-content: space-between; padding: 8px 12px; font-size: 13.5px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 7px 22px; margin: 0; padding: 20px 22px;
  background: #fff; border: 1px solid var(--rule); border-radius: 10px; font-size: 14px; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
details > summary { cursor: pointer; color: var(--blue); margin: 10px 0 14px; }
.good { color: var(--good); } .bad { color: var(--bad); }
@media (max-width: 760px) {
  .figures, .films { grid-template-columns: 1fr; } main { padding: 32px 16px; } h1 { font-size: 26px; }
  thead { display: none; } table, tbody, tr, td { display: block; }
  tr { padding: 8px 12px; border-bottom: 1px solid var(--rule); }
  td, td:first-child { display: flex; justify-content: space-between; gap: 12px; padding: 3px 0; border: 0;
    text-align: right; white-space: normal; }
  td::before { content: attr(data-of); color: var(--faint); text-align: left; font-weight: 400; }
  td:empty { display: none; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
@media print { .films { display: none; } main { padding: 0; } }
"""

SCRIPT = """
for (const film of document.querySelectorAll("video")) {
  film.addEventListener("mouseenter", () => film.play());
  film.addEventListener("mouseleave", () => film.pause());
}
"""
