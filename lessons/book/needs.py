"""A drawing of which lesson needs which others, as SVG: a row for each rank, and arrows downwards."""

import textwrap
from html import escape

WIDTH, HEIGHT, GAP, ROW, LANE = 138, 58, 16, 96, 14  # of a box, between boxes, between rows, of a line that passes a row


def drawing(lessons):
    """lessons: {number: Lesson}, each after those that it needs -> SVG"""
    arrows = reduced({number: [x for x in lesson.before if x in lessons] for number, lesson in lessons.items()})
    layers, links = layered(arrows)
    for _ in range(8):
        ordered(layers, links)
    places, width = placed(layers)
    lines = [
        f'<svg viewBox="0 0 {width} {len(layers) * ROW - ROW + HEIGHT + 4}" width="{width}" class="needs" role="img" '
        'aria-label="Which lesson needs which others">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for upper, lower in links:
        (x0, y0), (x1, y1) = places[upper], places[lower]
        y0, end = y0 + HEIGHT, ' marker-end="url(#arrow)"' if lower in lessons else ""
        down = f"M{x0} {y0 if upper in lessons else y0 - HEIGHT}V{y0}"
        lines.append(f'<path class="line" d="{down}C{x0} {y0 + 22} {x1} {y1 - 22} {x1} {y1 - (2 if end else 0)}"{end}/>')
    for number, lesson in lessons.items():
        x, y = places[number]
        title = textwrap.wrap(f"{number} {lesson.title.partition(':')[0]}", 18)[:3]
        spans = "".join(
            f'<tspan x="{x}" y="{y + HEIGHT / 2 + 5 + 16 * (k - (len(title) - 1) / 2)}">{escape(part)}</tspan>'
            for k, part in enumerate(title)
        )
        lines.append(
            f'<a href="{lesson.path.stem}.html"><rect x="{x - WIDTH / 2}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f"<text>{spans}</text></a>"
        )
    return "\n".join([*lines, "</svg>"])


def reduced(needs):
    """Without the needs that follow from others."""
    everything = {}
    for number, direct in needs.items():
        everything[number] = set(direct).union(*(everything[x] for x in direct))
    return {number: [x for x in direct if not any(x in everything[y] for y in direct)] for number, direct in needs.items()}


def layered(arrows):
    """Rows of names, and links between neighbouring rows: an arrow that passes rows has a name (arrow, row) in each."""
    rank = {}
    for number, direct in arrows.items():
        rank[number] = max((rank[x] + 1 for x in direct), default=0)
    layers, links = [[] for _ in range(max(rank.values()) + 1)], []
    for number, direct in arrows.items():
        layers[rank[number]].append(number)
        for x in direct:
            chain = [x, *((x, number, row) for row in range(rank[x] + 1, rank[number])), number]
            for name in chain[1:-1]:
                layers[name[2]].append(name)
            links += zip(chain, chain[1:], strict=False)
    return layers, links


def ordered(layers, links):
    """Sort each row by the mean place of the neighbours of its names, so that few lines cross."""
    for step in (1, -1):
        rows = layers[::step]
        for fixed, row in zip(rows, rows[1:], strict=False):
            place = {name: (k + 0.5) / len(fixed) for k, name in enumerate(fixed)}
            mean = {}
            for name in row:
                near = [place[a] for pair in links for a, b in (pair, pair[::-1]) if b == name and a in place]
                mean[name] = sum(near) / len(near) if near else 0.5
            row.sort(key=mean.get)


def placed(layers):
    """{name: (x of the middle, y of the top)}, and the width of all."""
    widths = [sum(WIDTH if isinstance(name, str) else LANE for name in row) + GAP * (len(row) - 1) for row in layers]
    places = {}
    for k, (row, width) in enumerate(zip(layers, widths, strict=True)):
        x = (max(widths) - width) / 2 + 2
        for name in row:
            own = WIDTH if isinstance(name, str) else LANE
            places[name], x = (x + own / 2, k * ROW + 2), x + own + GAP
    return places, max(widths) + 4
