"""The README's picture is drawn from any head trained on scenes."""

import numpy as np
from PIL import Image

from scripts.readme_picture import GAP, SIDE, main


def test_the_picture_shows_scenes_and_their_components(sandbox, tmp_path):
    path = tmp_path / "components.png"
    arguments = ["--checkpoint", str(sandbox.run / "checkpoint.pt"), "--scenes", str(sandbox.root("scenes"))]
    assert main([*arguments, "--images", "2", "--clusters", "6", "--output", str(path)]) == 0
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape == (2 * SIDE + GAP, 2 * SIDE + GAP, 3)
    scene, components = picture[:SIDE, :SIDE], picture[-SIDE:, :SIDE]
    assert np.abs(scene - components).mean() > 10
