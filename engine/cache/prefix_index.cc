#include "engine/cache/prefix_index.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace sluice::engine {
namespace {

using Tokens = std::span<const TokenId>;

// Compressed: a node other than a root has a non-empty edge, and either sequences that end at it or >= 2 children.
struct Node {
  Node* parent = nullptr;
  std::vector<TokenId> edge;                          // tokens between the parent and this node
  std::map<TokenId, std::unique_ptr<Node>> children;  // by the first token of their edge
  std::vector<SequenceId> through;                    // sequences that reach this node, ascending
  size_t ending = 0;                                  // how many of them end exactly here
};

void AddTo(std::vector<SequenceId>& through, SequenceId sequence) {
  through.insert(std::lower_bound(through.begin(), through.end(), sequence), sequence);
}

void RemoveFrom(std::vector<SequenceId>& through, SequenceId sequence) {
  through.erase(std::lower_bound(through.begin(), through.end(), sequence));
}

size_t CommonLength(Tokens a, Tokens b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

// Cuts the edge of `lower` after `length` tokens; the new upper node is returned. `lower` keeps its address, because
// sequences that end there point to it.
Node* Split(Node* lower, size_t length) {
  std::unique_ptr<Node>& link = lower->parent->children[lower->edge[0]];
  auto upper = std::make_unique<Node>();
  upper->parent = lower->parent;
  upper->edge.assign(lower->edge.begin(), lower->edge.begin() + length);
  upper->through = lower->through;
  lower->edge.erase(lower->edge.begin(), lower->edge.begin() + length);
  lower->parent = upper.get();
  std::swap(link, upper);  // now `upper` owns the lower node and `link` the upper one
  Node* const result = link.get();
  result->children[lower->edge[0]] = std::move(upper);
  return result;
}

// Keeps the tree compressed: a node with one child, at which nothing ends, becomes part of that child.
void MergeIntoOnlyChild(Node* node) {
  if (node->parent == nullptr || node->ending > 0 || node->children.size() != 1) return;
  std::unique_ptr<Node> child = std::move(node->children.begin()->second);
  child->edge.insert(child->edge.begin(), node->edge.begin(), node->edge.end());
  child->parent = node->parent;
  node->parent->children[child->edge[0]] = std::move(child);  // destroys `node`
}

// Adds `sequence`, which reaches `node` already, along `tokens`; returns where it ends.
Node* Insert(Node* node, SequenceId sequence, Tokens tokens) {
  while (!tokens.empty()) {
    std::unique_ptr<Node>& link = node->children[tokens[0]];
    if (link == nullptr) {
      link = std::make_unique<Node>();
      link->parent = node;
      link->edge.assign(tokens.begin(), tokens.end());
    }
    node = link.get();
    const size_t common = CommonLength(node->edge, tokens);
    if (common < node->edge.size()) node = Split(node, common);
    AddTo(node->through, sequence);
    tokens = tokens.subspan(common);
  }
  ++node->ending;
  return node;
}

// The nodes that a prompt reaches, top down, each with the tokens in common up to it (the last may be cut short).
template <typename Visit>
void Walk(const Node& root, Tokens tokens, Visit visit) {
  const Node* node = &root;
  size_t depth = 0;
  while (depth < tokens.size()) {
    const auto child = node->children.find(tokens[depth]);
    if (child == node->children.end()) return;
    node = child->second.get();
    const size_t common = CommonLength(node->edge, tokens.subspan(depth));
    depth += common;
    visit(*node, static_cast<int>(depth));
    if (common < node->edge.size()) return;
  }
}

}  // namespace

struct PrefixIndex::Tree {
  using Roots = std::map<std::string, Node, std::less<>>;
  struct Holder {
    Roots::iterator root;
    Node* end;
  };
  Roots roots;  // by salt; no root without sequences
  std::unordered_map<SequenceId, Holder> holders;
};

PrefixIndex::PrefixIndex() : tree_(std::make_unique<Tree>()) {}
PrefixIndex::~PrefixIndex() = default;

void PrefixIndex::Set(SequenceId sequence, std::string_view salt, Tokens tokens) {
  Remove(sequence);
  const auto root = tree_->roots.try_emplace(std::string(salt)).first;
  AddTo(root->second.through, sequence);
  tree_->holders[sequence] = {root, Insert(&root->second, sequence, tokens)};
}

void PrefixIndex::Extend(SequenceId sequence, Tokens tokens) {
  const auto it = tree_->holders.find(sequence);
  SLUICE_CHECK(it != tree_->holders.end(), "Extend needs an earlier Set");
  Node* const end = it->second.end;
  if (tokens.empty()) return;
  if (end->parent != nullptr && end->through.size() == 1) {  // nobody else is here: the usual case, once per token
    end->edge.insert(end->edge.end(), tokens.begin(), tokens.end());
    return;
  }
  --end->ending;
  it->second.end = Insert(end, sequence, tokens);
  MergeIntoOnlyChild(end);
}

void PrefixIndex::Remove(SequenceId sequence) {
  const auto it = tree_->holders.find(sequence);
  if (it == tree_->holders.end()) return;
  const auto [root, end] = it->second;
  tree_->holders.erase(it);
  --end->ending;
  for (Node* node = end; node != nullptr;) {
    Node* const parent = node->parent;
    RemoveFrom(node->through, sequence);
    if (parent != nullptr && node->through.empty()) {
      parent->children.erase(node->edge[0]);
    } else {
      MergeIntoOnlyChild(node);
    }
    node = parent;
  }
  if (root->second.through.empty()) tree_->roots.erase(root);
}

PrefixIndex::Match PrefixIndex::Longest(std::string_view salt, Tokens tokens) const {
  Match best;
  const auto root = tree_->roots.find(salt);
  if (root == tree_->roots.end()) return best;
  Walk(root->second, tokens, [&](const Node& node, int depth) { best = {node.through.front(), depth}; });
  return best;
}

std::vector<PrefixIndex::Match> PrefixIndex::Matches(std::string_view salt, Tokens tokens, size_t limit) const {
  std::vector<Match> matches;
  const auto root = tree_->roots.find(salt);
  if (root == tree_->roots.end()) return matches;
  std::vector<std::pair<const Node*, int>> path;
  Walk(root->second, tokens, [&](const Node& node, int depth) { path.emplace_back(&node, depth); });
  std::span<const SequenceId> deeper;  // reported already: each node's sequences reach its parent too; both ascend
  for (auto node = path.rbegin(); node != path.rend() && matches.size() < limit; ++node) {
    auto reported = deeper.begin();
    for (const SequenceId sequence : node->first->through) {
      if (reported != deeper.end() && *reported == sequence) {
        ++reported;
      } else if (matches.push_back({sequence, node->second}); matches.size() == limit) {
        break;
      }
    }
    deeper = node->first->through;
  }
  return matches;
}

size_t PrefixIndex::sequence_count() const { return tree_->holders.size(); }

PrefixIndex::Size PrefixIndex::size() const {
  Size size;
  const std::function<void(const Node&)> add = [&](const Node& node) {
    ++size.nodes;
    size.tokens += node.edge.size();
    for (const auto& [first, child] : node.children) add(*child);
  };
  for (const auto& [salt, root] : tree_->roots) add(root);
  return size;
}

}  // namespace sluice::engine
