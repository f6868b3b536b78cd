import torch
from torch import nn

from hcl.models.digest import digest_of_weights


def test_the_digest_follows_from_names_types_shapes_and_values():
    layer = nn.Linear(2, 3)
    own = digest_of_weights(layer)
    same = nn.Linear(2, 3)
    same.load_state_dict(layer.state_dict())
    assert digest_of_weights(same) == own
    others = [nn.Sequential(same), nn.Linear(2, 3, bias=False), nn.Linear(2, 3)]
    others[1].weight = others[2].weight = nn.Parameter(layer.weight.detach().clone())
    half = nn.Linear(2, 3)
    half.load_state_dict(layer.state_dict())
    others.append(half.to(torch.bfloat16))
    assert own not in {digest_of_weights(other) for other in others}


def test_the_same_numbers_in_another_shape_are_other_weights():
    wide, high = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
    high.weight = nn.Parameter(wide.weight.detach().view(8, 2).clone())
    assert digest_of_weights(wide) != digest_of_weights(high)
