"""The page of graphs in a browser without a network, the figures, and the server: what a folder of graphs shows."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromium
import pytest
from conftest import HOSTILE
from filelock import FileLock

from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.report.graph_figures import figures
from neuron_vs_sae.report.graph_server import HOST, server
from neuron_vs_sae.report.paper_style import save
from neuron_vs_sae.running import runner
from neuron_vs_sae.studies.graphs import GraphsResult, load
from neuron_vs_sae.studies.spec import make_spec
from neuron_vs_sae.studies.tracing import TraceStudy


@pytest.fixture(scope="module")
def found(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path, shared_folder: Path) -> GraphsResult:
    """Graphs of eight prompts of a task of hostile name, in neurons and a dictionary, with heads, supernodes and windows."""
    folder = shared_folder / "graphs"
    with FileLock(f"{folder}.lock"):
        if not (folder / "results" / "study.json").exists():
            folder.mkdir()
            task, corpus = folder / f"{HOSTILE}.jsonl", folder / "text.txt"
            rows = [
                {**json.loads(line), HOSTILE: HOSTILE} for file in task_files for line in file.read_text().splitlines()
            ]
            task.write_text("".join(json.dumps(row) + "\n" for row in rows))
            corpus.write_text("ann saw a cat he saw a dog she met a hen\n" * 20)
            study = make_spec(TraceStudy, {
                "model": str(checkpoint), "task": str(task), "examples": 8, "eval_examples": 8, "index": "0-7",
                "basis": ["mlp_neurons", f"sae:{sae_folder}"], "nodes": 20, "sizes": [3, 10, 20], "attention": "split", "targets": "logits",
                "supernodes": 2, "sampled_edges": 5, "resamples": 100, "corpus": str(corpus), "contexts": 8, "context_length": 8,
            })  # fmt: skip
            runner.run(study, folder / "results")
    return load(folder / "results")


def test_every_graph_has_its_files(found: GraphsResult) -> None:
    names = set(found.slugs)
    assert len(names) == 16
    for folder, ending in (("viewer", ".json"), ("mib", ".json")):
        assert {file.name for file in (found.folder / folder).iterdir()} == {name + ending for name in names}
    assert {file.name for file in (found.folder / "graphs").iterdir()} == names
    features = list((found.folder / "features").glob("*/*.json"))
    assert features
    for file in features:
        about = json.loads(file.read_text())
        assert about["index"] == int(file.stem)
        assert about["examples_quantiles"]
        for quantile in about["examples_quantiles"]:
            for example in quantile["examples"]:
                assert len(example["tokens"]) == len(example["tokens_acts_list"])
                assert 0 <= example["train_token_ind"] < len(example["tokens"])


def test_figures_are_drawn_of_scores_graphs_heads_and_supernodes(found: GraphsResult, tmp_path: Path) -> None:
    drawn = dict(figures(found))
    begin = [name.split("-")[0] for name in drawn]
    assert begin.count("frontier") == 1
    assert begin.count("supernodes") == 2
    assert sum(name.endswith("-heads") for name in drawn) == 2
    assert {name for name in drawn if name in found.slugs} == set(found.table.drop_duplicates("basis")["slug"])
    frontier = next(figure for name, figure in drawn.items() if name.startswith("frontier"))
    for basis, line in zip(found.study.basis, frontier.axes[0].lines, strict=True):
        rows = found.table.loc[(found.table["basis"] == basis) & ~found.table["pruned"]]
        assert line.get_ydata() == pytest.approx(rows.groupby("k")["replacement"].mean().to_numpy())
    graph = found.graph(found.slugs[0])
    heads = drawn[f"{found.slugs[0]}-heads"].axes[0].images[0].get_array()
    assert graph.heads is not None
    entering = float(graph.heads.abs().sum() / graph.edges.leaves.abs().sum())
    assert float(heads.sum()) == pytest.approx(entering, rel=1e-5)
    save(frontier, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_a_features_number_is_that_of_the_viewers_node(found: GraphsResult) -> None:
    for name in found.slugs[:2]:
        document = json.loads((found.folder / "viewer" / f"{name}.json").read_text())
        basis = next(f for f in (found.folder / "features").iterdir() if f"-{f.name}-" in name or f.name in name)
        there = {int(file.stem) for file in basis.glob("*.json")}
        assert {n["feature"] for n in document["nodes"] if n["feature_type"] == "cross layer transcoder"} <= there


needs_browser = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.REASON)


@needs_browser
@pytest.mark.long
def test_the_page_shows_both_bases_and_answers_keys_without_a_network(found: GraphsResult) -> None:
    with chromium.browser() as page:
        for width in (1280, 390):
            page.open(found.folder / "graph.html", width=width)
            page.wait_for("document.querySelectorAll('.mark').length > 10")
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run("document.querySelectorAll('.panel').length") == 2
            assert page.run("document.querySelectorAll('.panel svg').length") == 2
        page.open(found.folder / "graph.html")
        page.wait_for("document.querySelectorAll('.mark').length > 10")
        # By keyboard alone: to the first picture's node, along, and open it.
        page.run("document.querySelector('.mark[tabindex=\"0\"]').focus()")
        page.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp', bubbles: true}))")
        page.press("Enter")
        page.wait_for("document.querySelector('#card h4') !== null")
        assert page.run("document.activeElement.classList.contains('chosen')")
        edges = page.run("document.querySelectorAll('.panel .edge').length")
        listed = page.run(
            "[...document.querySelectorAll('.flows b')].map((b) => +b.textContent.match(/\\d+/)[0]).reduce((a, b) => a + b)"
        )
        assert listed >= 1
        assert edges >= 1
        # Along an edge to another node.
        page.run("document.querySelector('.flows button').click()")
        assert page.run("document.querySelector('#card h4').textContent.length") > 0
        nodes = page.run("document.querySelectorAll('.mark').length")
        page.run(
            "(() => { const s = document.getElementById('held'); s.value = 0.3; s.dispatchEvent(new Event('input')); })()"
        )
        assert page.run("document.querySelectorAll('.mark').length") < nodes
        assert not page.problems
        assert [url for url in page.requests if not url.startswith("file:")] == []
        assert page.run("document.querySelectorAll('img').length") == 0


def test_names_are_inert_in_the_page(found: GraphsResult) -> None:
    page = (found.folder / "graph.html").read_text()
    assert "<img" not in page
    assert "\u202e" not in page


# The server.


@contextmanager
def serving(folder: Path, page: Path | None = None) -> Iterator[str]:
    running = server(folder, 0, page)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        assert running.server_address[0] == HOST == "127.0.0.1"
        yield f"http://{HOST}:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def get(url: str, method: str = "GET", **headers: str) -> Any:
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def refused(url: str, **options: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, **options)
    error.value.close()
    return error.value.code


def test_a_folder_is_served_to_this_machine_and_nothing_else_is(found: GraphsResult, tmp_path: Path) -> None:
    secret, page = tmp_path / "secret.txt", tmp_path / "page"
    page.mkdir()
    secret.write_text("secret")
    (page / "index.html").write_text("their page")
    (page / "link.txt").symlink_to(secret)
    with serving(found.folder, page) as url:
        assert get(url) == b"their page"
        assert get(f"{url}/graph.html").startswith(b"<!doctype html>")
        listed = json.loads(get(f"{url}/data/graph-metadata.json"))["graphs"]
        assert {graph["slug"] for graph in listed} == set(found.slugs)
        one = json.loads(get(f"{url}/graph_data/{found.slugs[0]}.json"))
        number = next(n["feature"] for n in one["nodes"] if n["feature_type"] == "cross layer transcoder")
        assert json.loads(get(f"{url}/{one['metadata']['scan']}/{number}.json".replace("/./", "/")))["index"] == number
        assert get(f"{url}/graph.html", method="HEAD") == b""
        wrong = (
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/viewer/..%2f..%2fsecret.txt",
            "/link.txt",
            "/study.json",
            "/graph_data/../study.json",
            "/nonesuch",
            "/%00",
        )
        for path in wrong:
            assert refused(url + path) == 404, path
        for method, headers, status in (("POST", {}, 501), ("PUT", {}, 501), ("GET", {"Host": "evil.example:80"}, 403)):
            assert refused(f"{url}/graph.html", method=method, **headers) == status
    with serving(found.folder) as url:
        assert get(url).startswith(b"<!doctype html>")
    with pytest.raises(FolderError, match="holds no graphs"):
        server(tmp_path, 0)
    with pytest.raises(InputError, match=r"has no index\.html"):
        server(found.folder, 0, tmp_path)
