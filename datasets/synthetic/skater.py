"""Drawing the skater: shaded round cones with a depth buffer, anti-aliased, motion-blurred.

Each part of the body is a cone with round ends. Its outline is that of the two projected end
circles; inside it a surface normal and a depth are known for every pixel, so parts are lit and
hide each other as solid bodies would. S instants of one exposure are drawn at once.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.synthetic.body import HEAD_RADIUS, REFERENCE_HEIGHT, Joint, unit
from datasets.synthetic.scene import Camera
from datasets.synthetic.textures import Colour, muted_colour

# Towards the lamps in camera axes: from the upper left, in front.
_LIGHT = np.array([-0.42, -0.70, -0.577], np.float32)
_AMBIENT, _DIFFUSE, _BOUNCE, _RIM = 0.60, 0.46, 0.07, 0.14


@dataclass(frozen=True, slots=True)
class Look:
    """Colours (RGB, 0-255) and cut of the costume."""

    skin: Colour
    hair: Colour
    top: Colour
    sleeves: Colour
    legs: Colour
    boots: Colour
    skirt: Colour | None
    bun: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Look":
        """Draw a costume that could be worn: muted colours, tights or trousers, skirt or none."""
        skin = np.array([226.0, 184.0, 160.0]) * rng.uniform(0.42, 1.0) * rng.uniform(0.97, 1.03, 3)
        top = np.array(muted_colour(rng, value=(55, 215), saturation=(0.08, 0.5)))
        dark = np.array([36.0, 36.0, 42.0]) * rng.uniform(0.7, 1.4)
        wears_skirt = bool(rng.random() < 0.5)
        legs = skin * 0.96 if wears_skirt and rng.random() < 0.8 else dark
        if not wears_skirt and rng.random() < 0.25:
            legs = top * 0.55
        other = np.array(muted_colour(rng, value=(50, 215), saturation=(0.08, 0.5)))
        skirt = top * 0.88 if rng.random() < 0.65 else other
        sleeves = top if rng.random() < 0.6 else skin
        hair = np.array([58.0, 42.0, 32.0]) * rng.uniform(0.35, 2.4)
        boots = np.array([236.0, 234.0, 230.0]) if rng.random() < 0.55 else dark * 0.9
        return cls(
            skin=tuple(skin),
            hair=tuple(hair),
            top=tuple(top),
            sleeves=tuple(sleeves),
            legs=tuple(legs),
            boots=tuple(boots),
            skirt=tuple(skirt) if wears_skirt else None,
            bun=bool(rng.random() < (0.8 if wears_skirt else 0.15)),
        )


@dataclass(frozen=True, slots=True)
class Solids:
    """K round cones at N instants.

    Attributes:
        ends: (N, K, 2, 3) world positions of the end centres, metres.
        radii: (K, 2) metres.
        colours: (K, 3) RGB, 0-255.
        head: which of the K is the head: hair, with a face where it looks.
        skirt: which are a skirt's halves, cut off flat at the hem.
        facing: (N, 3) unit vectors, where the face looks.
        skin: (3,) the face's colour.
    """

    ends: np.ndarray
    radii: np.ndarray
    colours: np.ndarray
    head: int
    skirt: tuple[int, ...]
    facing: np.ndarray
    skin: np.ndarray

    def take(self, instants: np.ndarray) -> "Solids":
        """Return some of the instants."""
        return replace(self, ends=self.ends[instants], facing=self.facing[instants])

    def mirrored(self) -> "Solids":
        """Return the image below the ice."""
        return replace(self, ends=self.ends * np.array([1.0, -1.0, 1.0]))

    def flattened(self, slant: np.ndarray) -> "Solids":
        """Return the shadow on the ice; `slant` is its shift in x and z per metre of height."""
        ends = self.ends.copy()
        ends[..., [0, 2]] += ends[..., 1:2] * slant
        ends[..., 1] = 0.0
        return replace(self, ends=ends)


class _Builder:
    """Collects cones, so that each part of the body is one line below."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.ends: list[np.ndarray] = []
        self.radii: list[tuple[float, float]] = []
        self.colours: list[Colour] = []

    def cone(self, a: np.ndarray, b: np.ndarray, radii: tuple[float, float], colour: Colour) -> int:
        """Add a cone between (N, 3) centres `a` and `b`; return its number."""
        self.ends.append(np.stack([a, b], axis=1))
        self.radii.append((radii[0] * self.scale, radii[1] * self.scale))
        self.colours.append(colour)
        return len(self.ends) - 1


def build_solids(joints: np.ndarray, height: float, look: Look) -> Solids:
    """Clothe (N, J, 3) world joints. Radii below are metres for a body of REFERENCE_HEIGHT."""
    builder = _Builder(height / REFERENCE_HEIGHT)
    for side in (0, 1):
        _add_leg(builder, joints, side, look)
        _add_arm(builder, joints, side, look)
    skirt = _add_torso(builder, joints, look)
    head, facing = _add_head(builder, joints, height, look)
    return Solids(
        ends=np.stack(builder.ends, axis=1),
        radii=np.array(builder.radii),
        colours=np.array(builder.colours),
        head=head,
        skirt=skirt,
        facing=facing,
        skin=np.array(look.skin),
    )


def _add_leg(builder: _Builder, joints: np.ndarray, side: int, look: Look) -> None:
    hip, knee = joints[:, Joint.LEFT_HIP + side], joints[:, Joint.LEFT_KNEE + side]
    ankle, toe = joints[:, Joint.LEFT_ANKLE + side], joints[:, Joint.LEFT_TOE + side]
    shin, foot = unit(ankle - knee), unit(toe - ankle)
    calf = knee + 0.33 * (ankle - knee)
    builder.cone(hip, knee, (0.081, 0.056), look.legs)
    builder.cone(knee, calf, (0.055, 0.057), look.legs)
    builder.cone(calf, ankle, (0.057, 0.04), look.legs)

    # The sole lies along the foot less the 0.3 that an ankle slopes to the toe (see the body).
    slope = np.sum(foot * shin, axis=1, keepdims=True)
    ahead = unit(foot - slope * shin)
    point = slope / np.sqrt(np.maximum(1 - slope**2, 1e-6)) - 0.3
    sole, down = unit(ahead + point * shin), unit(shin - point * ahead)
    metre = builder.scale
    heel = ankle + 0.05 * metre * down - 0.02 * metre * sole
    builder.cone(ankle - 0.09 * metre * shin, ankle, (0.049, 0.05), look.boots)
    builder.cone(heel, toe, (0.042, 0.03), look.boots)
    edge = ankle + 0.092 * metre * down
    back, front = edge - 0.075 * metre * sole, edge + 0.205 * metre * sole
    builder.cone(back, front, (0.008, 0.008), (176.0, 182.0, 190.0))


def _add_arm(builder: _Builder, joints: np.ndarray, side: int, look: Look) -> None:
    shoulder, elbow = joints[:, Joint.LEFT_SHOULDER + side], joints[:, Joint.LEFT_ELBOW + side]
    wrist, hand = joints[:, Joint.LEFT_WRIST + side], joints[:, Joint.LEFT_HAND + side]
    builder.cone(shoulder, elbow, (0.049, 0.038), look.sleeves)
    builder.cone(elbow, wrist, (0.038, 0.026), look.sleeves)
    builder.cone(wrist, hand, (0.026, 0.021), look.skin)


def _add_torso(builder: _Builder, joints: np.ndarray, look: Look) -> tuple[int, ...]:
    pelvis, neck = joints[:, Joint.PELVIS], joints[:, Joint.NECK]
    spine = neck - pelvis
    hips = look.legs if look.skirt is None else look.top
    builder.cone(joints[:, Joint.LEFT_HIP], joints[:, Joint.RIGHT_HIP], (0.078, 0.078), hips)
    builder.cone(pelvis + 0.1 * spine, pelvis + 0.82 * spine, (0.094, 0.078), look.top)
    tips = []
    for side in (0, 1):
        hip, shoulder = joints[:, Joint.LEFT_HIP + side], joints[:, Joint.LEFT_SHOULDER + side]
        waist = pelvis + 0.26 * spine + 0.66 * (hip - pelvis)
        chest = shoulder + 0.42 * (neck - shoulder) - 0.16 * spine
        builder.cone(waist, chest, (0.07, 0.082), look.top)
        tips.append(shoulder + 0.12 * (neck - shoulder))
    builder.cone(tips[0], tips[1], (0.05, 0.05), look.top)
    builder.cone(neck - 0.05 * spine, joints[:, Joint.HEAD], (0.046, 0.042), look.skin)
    if look.skirt is None:
        return ()
    # One half for each leg, so that the cloth follows a lifted thigh and still closes in between.
    thighs = [joints[:, knee] - joints[:, knee - 2] for knee in (Joint.LEFT_KNEE, Joint.RIGHT_KNEE)]
    falls = unit(thighs[0]) + unit(thighs[1]) - 0.4 * unit(spine)
    halves = []
    for side, thigh in enumerate(thighs):
        hip = joints[:, Joint.LEFT_HIP + side]
        belt = pelvis + 0.16 * spine + 0.5 * (hip - pelvis)
        hem = hip + 0.11 * builder.scale * unit(unit(thigh) + 0.5 * falls)
        halves.append(builder.cone(belt, hem, (0.08, 0.128), look.skirt))
    return tuple(halves)


def _add_head(
    builder: _Builder, joints: np.ndarray, height: float, look: Look
) -> tuple[int, np.ndarray]:
    centre = joints[:, Joint.HEAD]
    ears = joints[:, Joint.LEFT_EAR] - joints[:, Joint.RIGHT_EAR]
    up = unit(centre - joints[:, Joint.NECK])
    ahead = unit(np.cross(ears, up))
    # Mirroring the body turns the cross product's sense; the nose knows which way is ahead.
    ahead = ahead * np.sign(np.sum(ahead * (joints[:, Joint.NOSE] - centre), axis=1, keepdims=True))
    radius = HEAD_RADIUS * height
    size = HEAD_RADIUS * REFERENCE_HEIGHT
    if look.bun:
        bun = centre + radius * (0.55 * up - 0.85 * ahead)
        builder.cone(bun, bun, (0.42 * size, 0.42 * size), look.hair)
    chin = centre + radius * (0.22 * ahead - 0.42 * up)
    crown = centre + radius * (0.12 * up - 0.04 * ahead)
    return builder.cone(chin, crown, (0.72 * size, 1.0 * size), look.hair), ahead


@dataclass(frozen=True, slots=True)
class Projection:
    """Solids as a camera sees them, S instants: pixels, and metres where depth is meant.

    Attributes:
        ends: (S, K, 2, 2) pixels.
        radii: (S, K, 2) pixels.
        depth: (S, K, 2) metres.
        facing: (S, 3) where the face looks, camera axes.
    """

    ends: np.ndarray
    radii: np.ndarray
    depth: np.ndarray
    facing: np.ndarray

    def take(self, instants: np.ndarray) -> "Projection":
        """Return some of the instants."""
        return Projection(
            self.ends[instants], self.radii[instants], self.depth[instants], self.facing[instants]
        )

    def moved(self, corner: np.ndarray) -> "Projection":
        """Return the view in a cut-out whose first pixel is (x, y) `corner`."""
        return replace(self, ends=self.ends - corner)


def project_solids(solids: Solids, camera: Camera) -> Projection:
    """Project solids at N instants through a camera at the same N instants."""
    instants, count = solids.ends.shape[:2]
    pixels, depth = camera.project(solids.ends.reshape(instants, count * 2, 3))
    depth = depth.reshape(instants, count, 2)
    return Projection(
        ends=pixels.reshape(instants, count, 2, 2).astype(np.float32),
        radii=(solids.radii * camera.focal[:, None, None] / depth).astype(np.float32),
        depth=depth.astype(np.float32),
        facing=np.einsum("nij,nj->ni", camera.rotation, solids.facing).astype(np.float32),
    )


Box = tuple[slice, slice]  # rows, columns


def bounding_box(view: Projection, size: tuple[int, int], margin: float = 2.0) -> Box | None:
    """Return rows and columns of the picture that hold all solids; None when none do."""
    reach = view.radii[..., None] + margin
    low = np.floor((view.ends - reach).min(axis=(0, 1, 2))).astype(int)
    high = np.ceil((view.ends + reach).max(axis=(0, 1, 2))).astype(int) + 1
    return _clipped(low, high, size)


def _clipped(low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> Box | None:
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, size)
    if left >= right or top >= bottom:
        return None
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def draw_skater(picture: np.ndarray, solids: Solids, view: Projection) -> None:
    """Draw the S instants of `view` onto (H, W, 3) uint8 `picture` and average them."""
    height, width = picture.shape[:2]
    box = bounding_box(view, (width, height))
    if box is None:
        return
    rows, columns = box
    instants = len(view.ends)
    patch = picture[rows, columns]
    canvas = np.repeat(patch[None].astype(np.float32), instants, axis=0)  # (S, h, w, 3)
    nearest = np.full(canvas.shape[:3], np.inf, np.float32)
    corner = np.array([columns.start, rows.start], np.float32)
    far_to_near = np.argsort(-view.depth.mean(axis=(0, 2)))
    for number in far_to_near:
        _draw_solid(canvas, nearest, solids, view, int(number), corner)
    picture[rows, columns] = (canvas.mean(axis=0) + 0.5).astype(np.uint8)


def _draw_solid(
    canvas: np.ndarray,
    nearest: np.ndarray,
    solids: Solids,
    view: Projection,
    number: int,
    corner: np.ndarray,
) -> None:
    """Draw one cone of all S instants into `canvas` (S, h, w, 3) and its depth buffer."""
    ends, radii = view.ends[:, number] - corner, view.radii[:, number]
    reach = radii.max() + 1.0
    low = np.floor(ends.min(axis=(0, 1)) - reach).astype(int)
    high = np.ceil(ends.max(axis=(0, 1)) + reach).astype(int) + 1
    box = _clipped(low, high, (canvas.shape[2], canvas.shape[1]))
    if box is None:
        return
    rows, columns = box
    start, radius0 = ends[:, 0, :, None, None], radii[:, 0, None, None]
    axis, widening = ends[:, 1, :, None, None] - start, radii[:, 1, None, None] - radius0
    length2 = np.maximum((axis * axis).sum(axis=1), 1e-4)
    x = np.arange(columns.start, columns.stop, dtype=np.float32) - start[:, 0]  # (S, 1, w)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - start[:, 1]  # (S, h, 1)
    along = (x * axis[:, 0] + y * axis[:, 1]) / length2  # (S, h, w)
    share = np.minimum(np.maximum(along, 0.0), 1.0)
    x, y = x - share * axis[:, 0], y - share * axis[:, 1]
    radius = radius0 + share * widening
    off_axis2 = x * x + y * y
    cover = np.minimum(np.maximum(radius - np.sqrt(off_axis2) + 0.5, 0.0), 1.0)
    if number in solids.skirt:  # a hem, not a round end
        cover *= np.clip((1.0 - along) * np.sqrt(length2) + 0.5, 0.0, 1.0)

    radius = np.maximum(radius, 0.5)
    x, y = x / radius, y / radius
    z = np.sqrt(np.maximum(1.0 - off_axis2 / (radius * radius), 0.0))  # towards the camera
    depth0, (metres0, metres1) = view.depth[:, number, 0, None, None], solids.radii[number]
    deeper = view.depth[:, number, 1, None, None] - depth0
    thickness = np.float32(metres0) + share * np.float32(metres1 - metres0)
    depth = depth0 + share * deeper - z * thickness
    cover *= depth < nearest[:, rows, columns]
    lit = _shade(x, y, z)[..., None]
    colour = _colour(solids, view, number, (x, y, z))
    area = canvas[:, rows, columns]
    area += cover[..., None] * (np.minimum(colour * lit, 255.0) - area)
    np.copyto(nearest[:, rows, columns], depth, where=cover > 0.5)


def _shade(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the brightness of a surface with normal (x right, y down, z towards the camera)."""
    facing_lamps = np.maximum(x * _LIGHT[0] + y * _LIGHT[1] - z * _LIGHT[2], 0.0)
    grazing = (1.0 - z) ** 2
    return (_AMBIENT + _DIFFUSE * facing_lamps + _BOUNCE * np.maximum(y, 0)) * (1 - _RIM * grazing)


def _colour(
    solids: Solids, view: Projection, number: int, normal: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Return the part's colour, (3,) or, on the head, (S, h, w, 3) with hair and face."""
    colour = solids.colours[number].astype(np.float32)
    if number != solids.head:
        return colour
    x, y, z = normal
    ahead = view.facing[:, :, None, None]
    towards = x * ahead[:, 0] + y * ahead[:, 1] - z * ahead[:, 2]
    face = np.clip(5.0 * (towards - 0.28 + 0.45 * np.minimum(y, 0.35)), 0.0, 1.0)[..., None]
    return colour + face * (solids.skin.astype(np.float32) - colour)


def draw_flat(picture: np.ndarray, view: Projection, instant: int, colours: np.ndarray) -> None:
    """Draw one instant as plain rounded strokes: good enough for what is blurred afterwards."""
    ends = (view.ends[instant] * 16).round().astype(int).tolist()  # sixteenths of a pixel
    widths = np.maximum(view.radii[instant].sum(axis=1).round(), 1).astype(int).tolist()
    for (start, stop), width, colour in zip(ends, widths, colours.tolist(), strict=True):
        cv2.line(picture, start, stop, colour, width, cv2.LINE_AA, 4)
