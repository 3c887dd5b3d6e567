"""The tree search of the paper as a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.structure_search import mcts
from crystallm.structure_search.policy import Proposal, random_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats
    from crystallm.sampling.sample import PrefixSampler
    from crystallm.structure_search.options import TreeOptions
    from crystallm.structure_search.policy import Outcome, SearchPrompt
    from crystallm.structure_search.prefixes import Ids, PrefixExplorer


class TreePolicy:
    """The tree search of the paper; see `tree`.

    Args:
        roots: prompts; of several, each is a child of the root, its weight the prior.
        writer: tells the network's probabilities.
    """

    def __init__(
        self,
        options: TreeOptions,
        seed: int,
        roots: Sequence[SearchPrompt],
        prefixes: PrefixExplorer,
        writer: PrefixSampler,
    ) -> None:
        self._options = options
        self._seed = seed
        self._prompts = [len(root.prompt) for root in roots]
        self._prefixes = prefixes
        self._writer = writer
        self._rewards = mcts.Rewards(options.reward_slope)
        self._root_of: dict[int, int] = {}
        self.root = mcts.Node(())
        starts = [prefixes.settled(root.prompt, len(root.prompt)) for root in roots]
        if len(roots) == 1:
            self.root.ids = starts[0]
            self._open([(self.root, 0)])
            return
        self.root.edges = [
            mcts.Edge(ids, root.weight / sum(r.weight for r in roots))
            for ids, root in zip(starts, roots, strict=True)
        ]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Leaves of the tree; see `Policy`."""
        found = []
        for number in range(first, first + n):
            node = mcts.select(
                self.root,
                self._options.selection_rule,
                self._options.exploration,
                random_stream(self._seed, number),
            )
            found.append(Proposal(node.ids, self._place(node), "tree", node))
        return found

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Add rewards to the tree, and look what may come behind its new leaves."""
        fresh: dict[int, tuple[mcts.Node, int]] = {}
        for proposal, texts in zip(proposals, outcomes, strict=True):
            if proposal.node is None:
                raise AssertionError("a proposal of another policy")
            rewards = [
                self._rewards.of(text.energy) if text.energy is not None else text.penalty for text in texts
            ]
            mcts.learn(proposal.node, sum(rewards) / len(rewards))
            if proposal.node.edges is None:
                fresh[id(proposal.node)] = proposal.node, proposal.root
        self._open(list(fresh.values()))

    def _place(self, node: mcts.Node) -> int:
        """Number of the prompt that a node begins with."""
        if len(self._prompts) == 1:
            return 0
        below = node
        while below.parent is not None and below.parent is not self.root:
            below = below.parent
        edges = self.root.edges or []
        return next(i for i, edge in enumerate(edges) if edge.node is below)

    def _open(self, nodes: list[tuple[mcts.Node, int]]) -> None:
        """Find the choices behind nodes; runs of tokens that are as good as certain come before them."""
        trunks = [node.ids for node, _ in nodes]
        todo = list(range(len(nodes)))
        while todo:
            for i in tuple(todo):
                if self._prefixes.complete(trunks[i], self._prompts[nodes[i][1]]):
                    nodes[i][0].edges = []
                    todo.remove(i)
            offered = [self._prefixes.options(trunks[i]) for i in todo]
            dead = [
                i for i, options in zip(todo, offered, strict=True) if options is not None and not options
            ]
            for i in dead:
                nodes[i][0].edges = []
            kept = [(i, options) for i, options in zip(todo, offered, strict=True) if i not in dead]
            peeked = self._writer.next_log_probs([(trunks[i], self._prompts[nodes[i][1]]) for i, _ in kept])
            todo = []
            for (i, options), log_probs in zip(kept, peeked.double().cpu().numpy(), strict=True):
                n_prompt = self._prompts[nodes[i][1]]
                tokens, priors = self._wide(log_probs, options, trunks[i])
                children = [self._prefixes.followed(trunks[i], (token,), n_prompt) for token in tokens]
                if len(children) == 1 and not self._prefixes.complete(children[0], n_prompt):
                    trunks[i] = children[0]
                    todo.append(i)
                    continue
                nodes[i][0].edges = [
                    mcts.Edge(ids, prior) for ids, prior in zip(children, priors, strict=True)
                ]

    def _wide(
        self, log_probs: Floats, allowed: Sequence[int] | None, ids: Ids
    ) -> tuple[list[int], list[float]]:
        options = self._options
        if options.n_space_groups and self._prefixes.names_group(ids):
            return mcts.widest(log_probs, allowed, width=options.n_space_groups, cutoff=1.0)
        return mcts.widest(log_probs, allowed, width=options.width, cutoff=options.prior_cutoff)
