import re
import shutil
from html.parser import HTMLParser

import pytest

from datasets.catalogue import find_row
from datasets.check.pool import Workers
from datasets.check.sheets import draw_classes, draw_worst
from datasets.check.survey import survey
from datasets.records import PUBLISHED
from pages.data_report import Report, detection_bars, render_report
from tests.scenes import NUM_FRAMES, write_scenes

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Follows the tags of a page, and collects its text and pictures."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.tags, self.links = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def root(tmp_path):
    return write_scenes(tmp_path / "mine")


def page_of(root, name="mine"):
    found = survey(root, find_row(name), Workers(1), decode=False)
    report = Report(name, found, "nothing", "good", [], draw_worst(found), draw_classes(found))
    return render_report(report)


def captions(page):
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_the_page_is_well_formed_and_needs_no_other_file(root):
    page = page_of(root)
    reader = Reader(page)
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    assert reader.links
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 2_000_000


def test_every_class_is_shown_stored_found_and_as_the_network_sees_it(root):
    shown = captions(page_of(root))
    assert len(shown) == 4 * 4
    assert sum("with keypoints" in caption for caption in shown) == 4
    for caption in ("heatmap of the keypoints", "input of the network in training, RGB"):
        assert shown.count(caption) == 4
    assert shown.count("its heatmap channel") == 4


def test_without_keypoints_frames_and_rgb_are_shown(root):
    shutil.rmtree(root / "poses")
    shown = captions(page_of(root))
    assert len(shown) == 4 * 2
    assert not any("heatmap" in caption for caption in shown)


EVIL = "<script>alert(1)</script>"


def test_names_are_escaped_wherever_they_come_from(root):
    folder = "<script>alert(1)<"  # the rest of the name is the folder below it
    source = root / "frames" / "train_0"
    target = root / "frames" / folder / "script>"
    target.parent.mkdir()
    source.rename(target)
    (root / "poses" / folder).mkdir()
    (root / "poses" / "train_0.npz").rename(root / "poses" / folder / "script>.npz")
    (target / "00003.jpg").write_bytes(b"")
    lines = f'# classes: ["{EVIL}", "\\"onload=x"]\n{EVIL} {NUM_FRAMES} 0\n{EVIL} x 1\n'
    with (root / "train_videofolder.txt").open(encoding="utf-8") as file:
        rest = "".join(file.readlines()[1:])
    (root / "train_videofolder.txt").write_text(lines + rest, encoding="utf-8")
    page = page_of(root)
    assert "<script" not in page
    reader = Reader(page)
    assert any(EVIL in text for text in reader.text)


def test_the_published_protocol_stands_in_red(root):
    assert "Published protocol" not in page_of(root)
    text = (root / "test_videofolder.txt").read_text(encoding="utf-8")
    (root / "val_videofolder.txt").write_text(f"# protocol: {PUBLISHED}\n{text}", encoding="utf-8")
    assert re.search(r'<p class="verdict bad">Published protocol', page_of(root))


def test_a_broken_frame_is_drawn_red_and_a_clip_that_cannot_be_opened_is_named(root):
    (root / "frames" / "train_0" / "00010.jpg").write_bytes(b"")
    shutil.rmtree(root / "frames" / "val_1")
    page = page_of(root)
    assert any("cannot be read" in caption for caption in captions(page))
    assert "Not all can be shown" in page
    assert Reader(page)


def test_a_finding_about_a_frame_shows_its_neighbours(root):
    import numpy as np

    from datasets.poses import save_poses
    from tests.scenes import SIZE, walker

    keypoints = walker(0)
    keypoints[9, ..., 0] += 45
    save_poses(root / "poses" / "train_0.npz", keypoints, SIZE, "test")
    assert any(caption.startswith("frames 7, 8, 9, 10, 11") for caption in captions(page_of(root)))
    assert np.isfinite(keypoints).all()


def test_the_histogram_counts_every_clip(root):
    found = survey(root, find_row("mine"), Workers(1), decode=False)
    bars = detection_bars(found)
    assert len(bars) == 10
    assert sum(bar.count for bar in bars) == 8
    assert bars[-1].share == 1


def test_an_empty_list_and_many_classes_can_be_shown(root):
    (root / "val_videofolder.txt").write_text("", encoding="utf-8")
    names = ", ".join(f'"class {i}"' for i in range(30))
    text = (root / "train_videofolder.txt").read_text(encoding="utf-8")
    (root / "train_videofolder.txt").write_text(f"# classes: [{names}]\n{text}", encoding="utf-8")
    page = page_of(root)
    assert Reader(page)
    assert "30 classes" in page


def test_kept_videos_are_shown_too(tmp_path):
    from datasets.clip_table import ClipRow, write_table
    from tests.making_videos import SIZE as FILM
    from tests.making_videos import write_video

    root = tmp_path / "films"
    (root / "videos").mkdir(parents=True)
    write_video(root / "videos" / "film.mp4", num_frames=30)
    size = {"width": FILM[0], "height": FILM[1]}
    rows = [
        ClipRow(f"clip_{i}", video="film.mp4", first_frame=15 * i, num_frames=15, fps=25, **size)
        for i in range(2)
    ]
    write_table(root, rows)
    (root / "train_videofolder.txt").write_text("clip_0 15 0\nclip_1 15 1\n", encoding="utf-8")
    page = page_of(root)
    assert len(captions(page)) == 2 * 2
    assert "Frames per second" in page
