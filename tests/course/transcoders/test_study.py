"""What the lesson on transcoders measures: on a model whose MLPs are sums of features, and on the embedded one."""

import numpy as np
import pytest
import torch
from tiny_model import D_MODEL, exact_transcoder, rows, tiny_model

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.circuits.greater_than import greater_than, year_spans
from sae_tutorial.circuits.prompts import at
from sae_tutorial.circuits.transcoder_circuits import Node, traced
from sae_tutorial.circuits.transcoder_graph import Graph, merged, strongest_paths
from sae_tutorial.circuits.transcoder_weights import reads, through_head, writes
from sae_tutorial.course.transcoders import drawings, study
from sae_tutorial.course.transcoders.viewer import drawn_graph, graph_viewer, node_html
from sae_tutorial.evaluation.feature_evidence import feature_evidence


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"), activation_function="relu")


def untrained(model, layer, **more):
    """A transcoder that predicts the mean of what its MLP writes in some spans, and little else."""
    sae = SparseAutoencoder(SAEConfig(256, 64, "token_choice", k=4, d_out=256, **more), seed=layer)
    sae.hook_name, sae.target_hook_name = f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"
    return sae


def test_pairs_are_harvested_in_one_pass_and_transcoders_trained_on_them(relu):
    found = study.pairs(relu, rows(40, padded=False), [0, 1], progress=False)
    assert list(found) == [0, 1]
    for layer, (store, target) in found.items():
        assert store.hook_name == f"blocks.{layer}.mlp.hook_in" and target.hook_name == f"blocks.{layer}.hook_mlp_out"
        assert store.text_hash == target.text_hash
    more = study.joined(found, study.pairs(relu, rows(5, padded=False)[:, :7], [0, 1], progress=False))
    assert [len(store) for store in more[1]] == [40 * 15 + 5 * 6] * 2 and more[1][
        1
    ].hook_name == "blocks.1.hook_mlp_out"
    assert torch.equal(more[0][0].rows(slice(600)), found[0][0].rows(slice(None)))
    config = SAEConfig(D_MODEL, 64, "token_choice", k=4, d_out=D_MODEL)
    transcoders = study.trained(found, config, steps=5, batch_size=64, progress=False)
    assert [sae.hook_name for sae in transcoders] == [f"blocks.{layer}.mlp.hook_in" for layer in (0, 1)]
    assert all(int(sae.tokens_seen) == 320 for sae in transcoders)


def test_spans_of_any_length_follow_the_text(model):
    found = study.pairs(model, torch.arange(40).view(2, 20), [1], progress=False)
    spans = year_spans(model, 8, events=["war", "expedition to the far north"])
    more = study.with_spans(found, model, spans)
    lengths = spans.positions["END"]
    assert len(lengths.unique()) > 1
    for stores in (more[1], found[1]):
        assert len(stores[0]) == len(stores[1])
    assert len(more[1][0]) == len(found[1][0]) + int(lengths.sum()), "neither padding nor what begins a row"


def test_exact_transcoders_cost_nothing_one_or_all(relu):
    exact = [exact_transcoder(relu, layer) for layer in (0, 1)]
    found = study.replaced_from_the_bottom(exact, relu, rows())
    assert len(found) == 2 and max(abs(one.kl) for one in found) < 1e-6
    assert found[0].kl_mean != found[1].kl_mean


def test_points_of_seeds_become_means_with_their_range():
    curve = study.over_seeds([(2, 1.0), (1, 0.5), (2, 3.0)])
    assert (curve.x, curve.y, curve.low, curve.high) == ([1, 2], [0.5, 2.0], [0.5, 1.0], [0.5, 3.0])
    assert study.over_seeds([]).y == []


def test_scores_with_features_and_neurons(model):
    spans = year_spans(model, 12)
    plain = study.score(model, spans)
    sae = untrained(model, 1)
    assert study.score_with(model, spans, []) == pytest.approx(plain)
    assert study.score_with(model, spans, [sae]) != pytest.approx(plain, abs=1e-3)
    few = study.with_few(model, sae, spans, [0, 64])
    assert few["features"][1] == pytest.approx(study.score_with(model, spans, [sae]))
    every = torch.arange(model.cfg.d_mlp)
    assert study.score(model, spans, study.with_neurons(1, every, study.text_of(spans))) == pytest.approx(plain)
    assert few["neurons"][0] == pytest.approx(
        study.score(model, spans, study.with_neurons(1, every[:0], study.text_of(spans)))
    )
    assert few["neurons"][0] != pytest.approx(plain, abs=1e-4)


def test_few_features_are_those_that_vary_most(model):
    values = torch.tensor([[1.0, 0.0, 5.0], [1.0, 2.0, 5.5], [1.0, 4.0, 5.0]])
    assert study.by_variance(values).tolist() == [1, 2, 0]
    sae = untrained(model, 1)
    kept = study.with_features(sae, torch.tensor([3, 5]))
    assert kept.W_dec.any(1).nonzero()[:, 0].tolist() == [3, 5] and sae.W_dec.any(1).all()
    spans = year_spans(model, 4)
    assert study.codes_at(model, sae, spans).shape == (4, 64)
    neurons = [study.neurons_at(model, 1, spans, where) for where in ("END", "YY")]
    assert neurons[0].shape == (4, 1024) and not torch.allclose(*neurons)
    few = [study.with_few(model, sae, spans, [2], where) for where in ("END", "YY")]
    assert few[0].keys() == {"features", "neurons"} and few[0]["neurons"] != few[1]["neurons"]


def test_the_kinds_of_parts_are_all_of_a_feature(relu):
    exact = [exact_transcoder(relu, layer) for layer in (0, 1)]
    shares = study.kinds_of_parts(relu, exact, rows(3, padded=False))
    assert tuple(shares) == study.PARTS
    codes = []
    for row in rows(3, padded=False):
        at_end = traced(relu, exact, row).mlps[1].by.codes[-1]
        codes.append(at_end[at_end > 0])
    assert torch.allclose(sum(shares.values()), torch.cat(codes), atol=1e-4), "of each feature, its code"
    assert shares["errors"].abs().max() < 1e-4 and not shares["skip paths"].any()
    assert all(shares[kind].abs().max() > 1e-3 for kind in ("features", "heads", "embeddings", "biases"))
    silent = study.with_features(exact[0], torch.tensor([], dtype=torch.long))
    with torch.no_grad():
        silent.b_dec.zero_()
    without = study.kinds_of_parts(relu, [silent, exact[1]], rows(3, padded=False))
    assert not without["features"].any() and torch.allclose(without["heads"], shares["heads"], atol=1e-4)
    assert without["errors"].all(), "what no feature of the first says is its error"


def test_features_that_look_for_words_are_active_at_their_list(relu):
    looks_for = exact_transcoder(relu, 0)
    with torch.no_grad():  # feature i for word i, among all else that the stream holds
        looks_for.W_enc.zero_()[:, :60] = 100 * relu.W_E.T
        looks_for.b_enc.fill_(-200)
    found = study.at_listed_tokens(relu, looks_for, rows(60, padded=False), n=1, least=5)
    own, other = found["its own list"], found["another feature's"]
    assert len(own) == len(other) > 10 and own.mean() > 5 * other.mean()
    assert (found["the best list"] >= own - 1e-6).all() and (found["the best list"] >= other - 1e-6).all()
    everywhere = study.at_listed_tokens(relu, looks_for, rows(20, padded=False), n=60, least=1)
    assert all((share == 1).all() for share in everywhere.values())


def test_heads_that_bring_the_year(model):
    sae, spans = untrained(model, 2), year_spans(model, 6)
    nodes = [Node("feature", 2, 0, f) for f in (3, 5)]
    found = study.heads_that_bring(model, [sae], spans, nodes)
    assert found.shape == (2, 4, model.cfg.n_heads) and not found[:, 3].any(), "layer 3 writes after layer 2 has read"
    yy, ends = spans.positions["YY"].tolist(), spans.positions["END"].tolist()
    traces = [traced(model, [sae], row[: end + 1]) for row, end in zip(spans.tokens, ends)]
    for node, of_one in zip(nodes, found):
        parts = [t.parts(t.feature(2, end, node.number)) for t, end in zip(traces, ends)]
        total = [one.total for one in parts]
        for head in ((0, 1), (2, 3)):
            brought = [float(one.heads[head][y]) for one, y in zip(parts, yy)]
            assert float(of_one[head]) == pytest.approx(float(np.polyfit(total, brought, 1)[0]), abs=1e-4)


def test_a_model_that_says_late_years_always_knows_nothing(model):
    spans = year_spans(model, 30, seed=4)
    assert 0.2 < study.knows(model, spans) < study.score(model, spans)
    late = torch.zeros(model.cfg.d_vocab)
    late[spans.years[97:]] = 50.0

    def say_late(logits, hook):
        return logits * 0 + late

    hooks = [("unembed.hook_out", say_late)]
    assert study.score(model, spans, hooks) > 0.9 and study.knows(model, spans, hooks) == pytest.approx(0, abs=1e-5)


def test_the_stream_is_shorter_without_a_feature_that_writes_along_it(model):
    sae, spans = untrained(model, 3), year_spans(model, 3)
    codes = study.codes_at(model, sae, spans)
    on = int(codes.min(0).values.argmax())
    silent = int(codes.sum(0).argmin())
    with torch.no_grad(), read_hook(model, "blocks.3.hook_resid_post") as read:
        stream = at(read(spans.tokens), spans.positions["END"])
        sae.W_dec[on] = 0.05 * stream.mean(0) / sae.out_scale
    shorter, same = study.length_without(model, sae, spans, [on, silent])
    assert shorter < 0.99 and same == pytest.approx(1)


def test_the_strongest_features_at_the_end_add_what_a_trace_says(model):
    spans, transcoders = year_spans(model, 2), [untrained(model, layer) for layer in (1, 2)]
    found = study.strongest_at_end(model, transcoders, spans)
    values = [abs(value) for _, value in found]
    assert values == sorted(values, reverse=True) and {node.layer for node, _ in found} == {1, 2}
    total = 0.0
    for row, end in enumerate(spans.positions["END"].tolist()):
        trace = traced(model, transcoders, spans.tokens[row, : end + 1])
        parts = trace.parts(trace.logit(end, *study.later_and_not(spans, row)))
        total += sum(float(added.sum()) for added in parts.features.values()) / 2
    assert sum(value for _, value in found) == pytest.approx(total, abs=1e-4)


def test_a_feature_that_is_taken_out(model):
    """Of the last layer: what the unembedding makes of the last stream without it. A silent one takes nothing."""
    spans, transcoders = year_spans(model, 3, seed=2), [untrained(model, layer) for layer in (1, 3)]
    nodes = [node for node, _ in study.strongest_at_end(model, transcoders, spans) if node.layer == 3][:2]
    lost = study.when_taken_out(model, transcoders, spans, nodes)
    codes = study.codes_at(model, transcoders[1], spans)
    with torch.no_grad(), read_hook(model, "blocks.3.hook_resid_post") as read:
        last = at(read(spans.tokens), spans.positions["END"])
    for node, out, score_lost in zip(nodes, lost["logits"], lost["score"]):
        without = last - codes[:, node.number, None] * writes(transcoders[1], [node.number])
        changes, scores = [], []
        for row, (x, y) in enumerate(zip(last, without)):
            logits = [model.unembed(model.ln_final(stream[None, None]))[0, 0] for stream in (x, y)]
            later, others = study.later_and_not(spans, row)
            whole, rest = (float(one[later].mean() - one[others].mean()) for one in logits)
            changes.append(whole - rest)
            scores.append([float(greater_than(one[None], spans[row : row + 1])) for one in logits])
        assert out == pytest.approx(sum(changes) / 3, abs=1e-4) and abs(out) > 1e-3
        assert score_lost == pytest.approx(sum(a - b for a, b in scores) / 3, abs=1e-5)
    silent = study.codes_at(model, transcoders[0], spans).sum(0).argmin()
    assert study.when_taken_out(model, transcoders, spans, [Node("feature", 1, 0, int(silent))])["logits"] == [0.0]


def test_what_lies_at_the_year_adds_up_to_the_stream(model):
    spans = year_spans(model, 4)
    with torch.no_grad(), read_hook(model, "blocks.1.hook_resid_post") as read:
        stream = at(read(spans.tokens), spans.positions["YY"])
    written = study.written_at_year(model, spans, 2)
    assert list(written) == ["embedding", "heads 0", "MLP 0", "heads 1", "MLP 1"]
    assert torch.allclose(sum(written.values()), stream, atol=1e-3)


def test_the_first_heads_of_the_embedded_model_look_at_the_year_itself(model):
    itself = study.looks_at_itself(model, year_spans(model, 5), 0)
    assert itself.shape == (8,) and (itself[:2] > 0.99).all() and itself[7] < 0.01


def test_scores_with_parts_of_the_year_held(model):
    """With nothing held the model is as it was; held at its mean, the year cannot be told but by its neighbours; and in
    spans of one year there is nothing to hold."""
    spans = year_spans(model, 40, seed=1)
    found = study.known_by_part(model, spans)
    assert list(found["held"]) == ["embedding", "heads 0", "MLP 0"] and list(found["alone"])[-1] == "none"
    whole = study.knows(model, spans)
    assert abs(found["alone"]["none"]) < 0.05 < 0.2 < whole and max(found["alone"].values()) <= whole + 0.03
    assert all(-0.05 < known < whole + 0.03 for known in found["held"].values())
    same = year_spans(model, 3, starts=[40], events=["war"], centuries=[17])
    for of in study.known_by_part(model, same).values():
        assert list(of.values()) == pytest.approx([0] * len(of), abs=1e-5)


def test_who_brings_the_year(model):
    """The head that brings most among those that can carry what layer 0 wrote; shares are those of a regression of each
    writer's part on all of it, and add up to 1."""
    spans, few = year_spans(model, 9, starts=[40, 8, 23]), year_spans(model, 2)
    transcoders = [untrained(model, layer) for layer in (0, 2)]
    node = Node("feature", 2, 0, int(study.codes_at(model, transcoders[1], spans).std(0).argmax()))
    [(same, head, share, shares)] = study.who_brings_the_year(model, transcoders, spans, few, [node])
    brings = study.heads_that_bring(model, transcoders, few, [node])[0]
    assert same == node and float(brings[head]) == float(brings[1:].max()) == pytest.approx(share)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    written = study.written_at_year(model, spans, head[0])
    assert shares.keys() == written.keys()
    M = through_head(model, reads(model, transcoders[1], [node.number]), head)[0]
    of_year = {name: [float((x @ M)[spans.start == y].mean()) for y in (8, 23, 40)] for name, x in written.items()}
    total = [sum(values) for values in zip(*of_year.values())]
    for name, values in of_year.items():
        slope = float(np.polyfit(total, values, 1)[0])
        assert shares[name] == pytest.approx(slope, abs=1e-3)


def test_years_are_later_or_not(model):
    spans = year_spans(model, 1, starts=[97])
    later, others = study.later_and_not(spans, 0)
    assert [model.tokenizer.decode([i]) for i in later] == ["98", "99"] and len(others) == 98


def test_a_graph_in_words_and_a_click(relu):
    tokens = rows()[0]
    trace = traced(relu, [exact_transcoder(relu, layer) for layer in (0, 1)], tokens)
    start = Node("logit", 2, 9, 7)
    graph = merged(strongest_paths(trace, trace.logit(9, 7, 3), start, expand=12, branches=4))
    shares = study.shares(graph)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4) and "rest" in shares
    word = relu.tokenizer.decode([int(tokens[9])])
    assert study.named(trace, Node("feature", 1, 9, 5)) == f"feature 1.5 at “{word}” (9)"
    fig = drawn_graph(trace, graph, "title")
    points = [tuple(node) for one in fig.data if one.customdata is not None for node in one.customdata]
    assert {Node(*node) for node in points} == graph.nodes.keys()
    evidence = {1: feature_evidence(trace.mlps[1].by.transcoder, relu, rows(padded=False), progress=False)}
    feature = next(node for node in graph.nodes if node.kind == "feature" and node.layer == 1)
    html = node_html(trace, graph, evidence, feature)
    assert f"Feature {feature.number}" in html and "promotes" in html
    assert "all that is not shown" in node_html(trace, graph, {}, start)
    leaf = next(node for node in graph.nodes if node.kind in ("bias", "token", "mlp", "error", "position"))
    assert "not followed further" in node_html(trace, graph, evidence, leaf)


def test_a_click_shows_the_node(relu):
    pytest.importorskip("anywidget")
    from plotly.callbacks import Points

    trace = traced(relu, [exact_transcoder(relu, 1)], rows()[0])
    start = Node("logit", 2, 9, 7)
    graph = merged(strongest_paths(trace, trace.logit(9, 7), start, expand=3, branches=3))
    figure, menu, page = graph_viewer(trace, graph, {}, "title").children
    assert menu.value.startswith("logits at") and "logits at" in page.value, "it begins with what is asked about"
    menu.value = next(name for name in menu.options if not name.startswith("logits"))
    assert menu.value in page.value
    stars = next(one for one in figure.data if one.name == "logits")
    stars._dispatch_on_click(Points(point_inds=[0]), None)
    assert menu.value.startswith("logits at") and "logits at" in page.value


def test_a_graph_without_anything():
    node = Node("logit", 2, 9, 7)
    assert study.shares(Graph({node: 2.0}, {}, {node: 2.0})) == {"rest": 1.0}


def test_the_drawings_say_what_they_show():
    assert "reads x as the MLP does" in drawings.sae_and_transcoder().alt
    assert "over the LayerNorm's scale" in drawings.two_factors().alt
