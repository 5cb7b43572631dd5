"""MMI-UNet: counts, recursion of the text, residuals, skips and sizes."""

import pytest
import torch

from textray.errors import BundleError
from textray.models.mmi_unet import ImageTextMatching, MMIUNet, MMIUNetConfig

WIDTH = 8


def small(**changes):
    torch.manual_seed(0)
    settings = {"trunk": "convnext_atto", "text_width": WIDTH, "dropout": 0.0, **changes}
    return MMIUNet(MMIUNetConfig(**settings)).eval()


def text(rows=2, tokens=4):
    return torch.randn(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(1)), torch.ones(rows, tokens)


def image(*size, rows=2):
    return torch.randn(rows, 3, *(size or (64, 96)), generator=torch.Generator().manual_seed(2))


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def count_token(network):
    return network.no_report.numel()


def watch(module):
    """Record what goes into a module and what comes out, in order of the calls."""
    seen = []
    module.register_forward_hook(lambda _, given, found: seen.append((given, found)))
    return seen


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):  # sizes without memory
        return MMIUNet()


class TestPaperConfiguration:
    def test_parameters(self, paper):
        assert count(paper) - count_token(paper) == 51_836_134

    def test_parts(self, paper):
        parts = {name: count(part) for name, part in paper.named_children()}
        assert parts == {"trunk": 27_818_592, "matching": 18_650_720, "decoder": 5_034_637, "head": 332_185}

    def test_matching_by_stage(self, paper):
        """The last stage goes without the 3,153,536 parameters of a text tail that nothing reads."""
        stages = [count(m) for m in paper.matching]
        assert stages == [422_176, 1_285_696, 4_339_840, 15_756_544 - 3_153_536]

    def test_only_the_token_is_besides(self, paper):
        assert count_token(paper) == 768
        assert [n for n, _ in paper.named_parameters(recurse=False)] == ["no_report"]

    def test_heads(self, paper):
        heads = [(m.image.self_attention.heads, m.image.cross_attention.heads) for m in paper.matching]
        assert heads == [(8, 8)] * 4

    def test_attention_kernels_of_the_skips(self, paper):
        assert [level.attention.mix.kernel_size[0] for level in paper.decoder] == [3, 5, 5]


class TestDataFlow:
    """What each stage reads, with deltas of zero and with others."""

    @pytest.fixture
    def network(self):
        return small()

    def run(self, network, features, mask):
        matched, staged = [watch(m) for m in network.matching], [watch(s) for s in network.trunk.stages]
        with torch.no_grad():
            network(image(), features, mask)
        return [m[0] for m in matched], [s[0] for s in staged]

    def test_zero_deltas_leave_one_text_and_one_image(self, network):
        for matching in network.matching:
            torch.nn.init.zeros_(matching.restore_image.weight)
            if matching.restore_text is not None:
                torch.nn.init.zeros_(matching.restore_text.weight)
        features, mask = text()
        matched, staged = self.run(network, features, mask)
        for s in range(4):
            assert torch.equal(matched[s][0][1], features)  # 1 x T
            assert torch.equal(matched[s][0][0], staged[s][1])  # F_s
            if s:
                assert torch.equal(staged[s][0][0], staged[s - 1][1])  # 1 x F
        with torch.no_grad():
            plain = network.trunk(image())
        assert all(torch.equal(plain[s], staged[s][1]) for s in range(4))

    def test_each_residual_counts_once(self, network):
        features, mask = text()
        matched, staged = self.run(network, features, mask)
        for s in range(1, 4):
            image_delta, text_delta = matched[s - 1][1]
            assert image_delta.abs().max() > 0
            assert torch.equal(staged[s][0][0], staged[s - 1][1] + image_delta)  # F + F^ITM
            assert torch.equal(matched[s][0][1], features + text_delta)  # T + T^ITM, not a growing sum
        assert matched[3][1][1] is None

    @pytest.mark.parametrize("skip", ["itm", "sum"])
    def test_decoder_reads_the_configured_skip(self, skip):
        network = small(skip=skip)
        levels = [watch(level) for level in network.decoder]
        gates = [watch(level.attention) for level in network.decoder]
        matched, staged = self.run(network, *text())
        wanted = [m[1][0] if skip == "itm" else s[1] + m[1][0] for m, s in zip(matched, staged, strict=True)]
        for s in range(3):
            deeper, given = levels[s][0][0]
            assert torch.equal(given, wanted[s])
            assert torch.equal(gates[s][0][0][0], wanted[s])  # the channel attention stands on the skip
            assert torch.equal(deeper, wanted[3] if s == 2 else levels[s + 1][0][1])

    def test_no_report_token_stands_in(self, network):
        matched, _ = self.run(network, None, None)
        assert torch.equal(matched[0][0][1], network.no_report.expand(2, 1, WIDTH))


class TestOddMaps:
    """The module on 7 x 7, where the released code loses the last row and column."""

    @pytest.fixture
    def module(self):
        torch.manual_seed(0)
        return ImageTextMatching(16, MMIUNetConfig(text_width=WIDTH), last=False).eval()

    @pytest.mark.parametrize("size", [(7, 7), (6, 7), (7, 6), (1, 1)], ids=str)
    def test_size_is_kept(self, module, size):
        features, mask = text()
        with torch.no_grad():
            found, words = module(torch.randn(2, 16, *size), features, mask > 0)
        assert found.shape == (2, 16, *size)
        assert words.shape == features.shape

    @pytest.mark.parametrize("where", [(6, 2), (2, 6), (6, 6)], ids=["row", "column", "corner"])
    def test_last_row_and_column_take_part(self, module, where):
        features, mask = text()
        before = torch.randn(2, 16, 7, 7)
        after = before.clone()
        after[:, :, where[0], where[1]] += 1
        with torch.no_grad():
            changed = (module(before, features, mask > 0)[0] - module(after, features, mask > 0)[0]).abs().amax((0, 1))
        assert changed[where] > 1e-4
        assert changed.min() > 0  # and reach every place through the attention

    def test_last_row_and_column_are_written(self, module):
        features, mask = text()
        with torch.no_grad():
            found = module(torch.randn(2, 16, 7, 7), features, mask > 0)[0]
        assert found[:, :, -1].abs().min() > 0
        assert found[:, :, :, -1].abs().min() > 0


def test_grey_images():
    network = small(in_channels=1)
    with torch.no_grad():
        assert network(image()[:, :1], *text()).logits.shape == (2, 1, 64, 96)


def test_dropout_is_random_in_training_only():
    network = small(dropout=0.5)
    given = (image(), *text())
    with torch.no_grad():
        assert torch.equal(network(*given).logits, network(*given).logits)
        network.train()
        assert not torch.equal(network(*given).logits, network(*given).logits)


def test_decoder_channels():
    network = small(decoder_channels=(8, 12, 20))
    assert [level.mix[0].out_channels for level in network.decoder] == [8, 12, 20]
    with torch.no_grad():
        assert network(image(), *text()).logits.shape == (2, 1, 64, 96)


def test_missing_trunk_weights_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"no trunk weights to read.*nowhere\.safetensors"):
        small(trunk_weights=str(tmp_path / "nowhere.safetensors")).load_pretrained()
