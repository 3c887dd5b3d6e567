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
    """The tree search of the paper; see `mcts`.

    Args:
        roots: prompts; of several, each is a child of the root, its weight the prior.
        prefixes: finds the choices of a sequence.
        sampler: gives the probabilities of the network.
    """

    def __init__(
        self,
        options: TreeOptions,
        seed: int,
        roots: Sequence[SearchPrompt],
        prefixes: PrefixExplorer,
        sampler: PrefixSampler,
    ) -> None:
        self._options = options
        self._seed = seed
        self._prompts = [len(root.prompt) for root in roots]
        self._prefixes = prefixes
        self._sampler = sampler
        self._rewards = mcts.Rewards(options.reward_slope)
        self._root_of: dict[int, int] = {}
        self.root = mcts.Node(())
        starts = [prefixes.with_forced(root.prompt, len(root.prompt)) for root in roots]
        if len(roots) == 1:
            self.root.ids = starts[0]
            self._expand([(self.root, 0)])
            return
        self.root.edges = [
            mcts.Edge(ids, root.weight / sum(r.weight for r in roots))
            for ids, root in zip(starts, roots, strict=True)
        ]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Return leaves of the tree; see `Policy`."""
        proposals = []
        for number in range(first, first + n):
            node = mcts.select(
                self.root,
                self._options.selection_rule,
                self._options.exploration,
                random_stream(self._seed, number),
            )
            proposals.append(Proposal(node.ids, self._prompt_index(node), "tree", node))
        return proposals

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Add rewards to the tree, and expand its new leaves."""
        leaves: dict[int, tuple[mcts.Node, int]] = {}
        for proposal, samples in zip(proposals, outcomes, strict=True):
            if proposal.node is None:
                raise AssertionError("a proposal of another policy")
            rewards = [
                self._rewards.of(sample.energy) if sample.energy is not None else sample.invalid_reward
                for sample in samples
            ]
            mcts.learn(proposal.node, sum(rewards) / len(rewards))
            if proposal.node.edges is None:
                leaves[id(proposal.node)] = proposal.node, proposal.root
        self._expand(list(leaves.values()))

    def _prompt_index(self, node: mcts.Node) -> int:
        """Return the index of the prompt of a node."""
        if len(self._prompts) == 1:
            return 0
        below = node
        while below.parent is not None and below.parent is not self.root:
            below = below.parent
        edges = self.root.edges or []
        return next(i for i, edge in enumerate(edges) if edge.node is below)

    def _expand(self, nodes: list[tuple[mcts.Node, int]]) -> None:
        """Set the choices after nodes; tokens that are almost certain are no choice and come before them."""
        prefixes = [node.ids for node, _ in nodes]
        todo = list(range(len(nodes)))
        while todo:
            for i in tuple(todo):
                if self._prefixes.is_complete(prefixes[i], self._prompts[nodes[i][1]]):
                    nodes[i][0].edges = []
                    todo.remove(i)
            options_of = {i: self._prefixes.allowed(prefixes[i]) for i in todo}
            dead = [i for i, options in options_of.items() if options is not None and not options]
            for i in dead:
                nodes[i][0].edges = []
                del options_of[i]
            next_log_probs = self._sampler.next_log_probs(
                [(prefixes[i], self._prompts[nodes[i][1]]) for i in options_of]
            )
            todo = []
            for (i, options), log_probs in zip(
                options_of.items(), next_log_probs.double().cpu().numpy(), strict=True
            ):
                n_prompt = self._prompts[nodes[i][1]]
                tokens, priors = self._branches(log_probs, options, prefixes[i])
                children = [self._prefixes.extend(prefixes[i], (token,), n_prompt) for token in tokens]
                if len(children) == 1 and not self._prefixes.is_complete(children[0], n_prompt):
                    prefixes[i] = children[0]
                    todo.append(i)
                    continue
                nodes[i][0].edges = [
                    mcts.Edge(ids, prior) for ids, prior in zip(children, priors, strict=True)
                ]

    def _branches(
        self, log_probs: Floats, allowed: Sequence[int] | None, ids: Ids
    ) -> tuple[list[int], list[float]]:
        """Return the tokens of the branches after a prefix, and their priors."""
        options = self._options
        if options.n_space_groups and self._prefixes.group_is_next(ids):
            return mcts.most_likely(log_probs, allowed, width=options.n_space_groups, cutoff=1.0)
        return mcts.most_likely(log_probs, allowed, width=options.width, cutoff=options.prior_cutoff)
