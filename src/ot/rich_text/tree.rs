//! A persistent sequence of spans: a balanced tree whose nodes are shared by all versions.
//!
//! A clone increments one counter; split and append take logarithmic time; a node that only one version uses is changed in
//! place. Adjacent spans are merged if possible: an edit checks every boundary that it creates.

use std::cmp::Ordering;
use std::sync::Arc;

use super::span::Span;

/// A sequence of spans.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    root: Option<Arc<TreeNode>>,
}

#[derive(Debug, Clone)]
struct TreeNode {
    /// UTF-16 units and bytes of all spans below.
    len: u64,
    bytes: usize,
    /// The height: 0 for a leaf.
    height: u32,
    children: Children,
}

/// From [`CHILDREN_MIN`] to [`CHILDREN_MAX`]; the root may have fewer.
#[derive(Debug, Clone)]
enum Children {
    Spans(Vec<Span>),
    Nodes(Vec<Arc<TreeNode>>),
}

const CHILDREN_MAX: usize = if cfg!(test) { 4 } else { 16 };
const CHILDREN_MIN: usize = CHILDREN_MAX / 2;

/// A position that splits a surrogate pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CutsPair;

impl Tree {
    /// Adds a span at the end.
    pub(super) fn push(&mut self, span: Span) {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(TreeNode::leaf(vec![span])));
            return;
        };
        if !root.absorb_at_end(&span) {
            let leaf = Arc::new(TreeNode::leaf(vec![span]));
            self.root = self.root.take().map(|root| join(root, leaf));
        }
    }

    /// Adds another tree at the end.
    pub(super) fn append(&mut self, mut other: Self) {
        while let Some(first) = other.first() {
            // After one merged span the next one may be mergeable too.
            let is_absorbed = self
                .root
                .as_mut()
                .is_some_and(|root| root.absorb_at_end(first));
            if !is_absorbed {
                break;
            }
            let len = first.len();
            let Ok((_, rest)) = other.split(len) else {
                return;
            };
            other = rest;
        }
        self.root = match (self.root.take(), other.root) {
            (Some(left), Some(right)) => Some(join(left, right)),
            (root, None) | (None, root) => root,
        };
    }

    /// The two parts before and after `at`; beyond the end the second is empty.
    pub(super) fn split(self, at: u64) -> Result<(Self, Self), CutsPair> {
        if at == 0 {
            return Ok((Self::default(), self));
        }
        if at >= self.len() {
            return Ok((self, Self::default()));
        }
        let Some(root) = self.root else {
            return Ok((Self::default(), Self::default()));
        };
        let sides = split(root, at);
        let (mut left, mut right) = (Self { root: sides.left }, Self { root: sides.right });
        if let Some((span, at)) = sides.cut {
            // The halves are shorter, so each may be mergeable with its neighbour.
            let (end, start) = span.split(at).ok_or(CutsPair)?;
            left.push(end);
            let after = std::mem::take(&mut right);
            right.push(start);
            right.append(after);
        }
        Ok((left, right))
    }

    pub(super) fn len(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.len)
    }

    pub(super) fn bytes(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.bytes)
    }

    /// Returns true if `at` splits a surrogate pair.
    pub(super) fn cuts_pair(&self, mut at: u64) -> bool {
        let Some(mut node) = self.root.as_deref().filter(|root| at < root.len) else {
            return false;
        };
        loop {
            match &node.children {
                Children::Nodes(nodes) => {
                    let below = nodes.iter().find(|node| {
                        let is_before = at >= node.len;
                        at -= if is_before { node.len } else { 0 };
                        !is_before
                    });
                    match below {
                        Some(below) => node = below,
                        None => return false,
                    }
                }
                Children::Spans(spans) => {
                    for span in spans {
                        if at < span.len() {
                            return span.cuts_pair(at);
                        }
                        at -= span.len();
                    }
                    return false;
                }
            }
        }
    }

    fn first(&self) -> Option<&Span> {
        self.spans().next()
    }

    pub(super) fn last(&self) -> Option<&Span> {
        let mut node = self.root.as_deref()?;
        loop {
            match &node.children {
                Children::Spans(spans) => return spans.last(),
                Children::Nodes(nodes) => node = nodes.last()?,
            }
        }
    }

    pub(super) fn spans(&self) -> Spans<'_> {
        let mut spans = Spans {
            open: Vec::new(),
            leaf: [].iter(),
        };
        if let Some(root) = &self.root {
            spans.descend(root);
        }
        spans
    }
}

impl TreeNode {
    fn leaf(spans: Vec<Span>) -> Self {
        let len = spans.iter().map(Span::len).sum();
        let bytes = spans.iter().map(Span::bytes).sum();
        Self {
            len,
            bytes,
            height: 0,
            children: Children::Spans(spans),
        }
    }

    fn branch(nodes: Vec<Arc<Self>>) -> Self {
        let len = nodes.iter().map(|node| node.len).sum();
        let bytes = nodes.iter().map(|node| node.bytes).sum();
        let height = nodes.first().map_or(0, |node| node.height) + 1;
        Self {
            len,
            bytes,
            height,
            children: Children::Nodes(nodes),
        }
    }

    /// Returns true if it has enough children to be below another node.
    fn is_filled(&self) -> bool {
        let count = match &self.children {
            Children::Spans(spans) => spans.len(),
            Children::Nodes(nodes) => nodes.len(),
        };
        count >= CHILDREN_MIN
    }

    /// The nodes below; for a leaf, itself.
    fn into_nodes(self: Arc<Self>) -> Vec<Arc<Self>> {
        match &self.children {
            Children::Spans(_) => vec![self],
            Children::Nodes(_) => match Arc::unwrap_or_clone(self).children {
                Children::Nodes(nodes) => nodes,
                Children::Spans(_) => Vec::new(),
            },
        }
    }

    /// Merges `span` into the last span, if possible.
    fn absorb_at_end(self: &mut Arc<Self>, span: &Span) -> bool {
        // Checked first: changing a shared node copies it.
        let mut node = &**self;
        let last = loop {
            match &node.children {
                Children::Spans(spans) => break spans.last(),
                Children::Nodes(nodes) => match nodes.last() {
                    Some(last) => node = last,
                    None => break None,
                },
            }
        };
        let Some(mut merged) = last.cloned() else {
            return false;
        };
        let before = merged.bytes();
        if !merged.absorb(span) {
            return false;
        }
        let bytes = merged.bytes() - before;
        let mut node = self;
        loop {
            let this = Arc::make_mut(node);
            this.len += span.len();
            this.bytes += bytes;
            match &mut this.children {
                Children::Nodes(nodes) => match nodes.last_mut() {
                    Some(last) => node = last,
                    None => return true,
                },
                Children::Spans(spans) => {
                    if let Some(last) = spans.last_mut() {
                        *last = merged;
                    }
                    return true;
                }
            }
        }
    }
}

/// Concatenates two trees. Only their roots may have too few children.
fn join(left: Arc<TreeNode>, right: Arc<TreeNode>) -> Arc<TreeNode> {
    match left.height.cmp(&right.height) {
        Ordering::Equal if left.is_filled() && right.is_filled() => {
            Arc::new(TreeNode::branch(vec![left, right]))
        }
        Ordering::Equal => fuse(left, right),
        Ordering::Less => {
            let height = right.height;
            let mut nodes = right.into_nodes();
            let first = if left.height + 1 == height && left.is_filled() {
                vec![left]
            } else {
                let first = nodes.remove(0);
                level(join(left, first), height - 1)
            };
            nodes.splice(0..0, first);
            pack(nodes)
        }
        Ordering::Greater => {
            let height = left.height;
            let mut nodes = left.into_nodes();
            if right.height + 1 == height && right.is_filled() {
                nodes.push(right);
            } else if let Some(last) = nodes.pop() {
                nodes.extend(level(join(last, right), height - 1));
            }
            pack(nodes)
        }
    }
}

/// The node itself if it has this height, otherwise its children, which have it then.
fn level(node: Arc<TreeNode>, height: u32) -> Vec<Arc<TreeNode>> {
    if node.height == height {
        vec![node]
    } else {
        node.into_nodes()
    }
}

/// Concatenates two nodes of one height, one of which has too few children.
fn fuse(left: Arc<TreeNode>, right: Arc<TreeNode>) -> Arc<TreeNode> {
    match (
        Arc::unwrap_or_clone(left).children,
        Arc::unwrap_or_clone(right).children,
    ) {
        (Children::Spans(mut spans), Children::Spans(more)) => {
            spans.extend(more);
            if spans.len() <= CHILDREN_MAX {
                return Arc::new(TreeNode::leaf(spans));
            }
            let right = spans.split_off(spans.len() / 2);
            Arc::new(TreeNode::branch(vec![
                Arc::new(TreeNode::leaf(spans)),
                Arc::new(TreeNode::leaf(right)),
            ]))
        }
        (Children::Nodes(mut nodes), Children::Nodes(more)) => {
            nodes.extend(more);
            pack(nodes)
        }
        (Children::Spans(_), Children::Nodes(_)) | (Children::Nodes(_), Children::Spans(_)) => {
            unreachable!("nodes of one height have children of one sort")
        }
    }
}

/// A branch over at most twice as many nodes as one may have.
fn pack(mut nodes: Vec<Arc<TreeNode>>) -> Arc<TreeNode> {
    if nodes.len() <= CHILDREN_MAX {
        return Arc::new(TreeNode::branch(nodes));
    }
    let right = nodes.split_off(nodes.len() / 2);
    Arc::new(TreeNode::branch(vec![
        Arc::new(TreeNode::branch(nodes)),
        Arc::new(TreeNode::branch(right)),
    ]))
}

/// The parts before and after a position.
struct Sides {
    left: Option<Arc<TreeNode>>,
    /// The span that contains the position, and the offset in it.
    cut: Option<(Span, u64)>,
    right: Option<Arc<TreeNode>>,
}

/// The parts before and after `at`, a position inside the node.
fn split(node: Arc<TreeNode>, mut at: u64) -> Sides {
    match &node.children {
        Children::Spans(_) => split_leaf(node, at),
        Children::Nodes(nodes) => {
            let mut index = 0;
            while at >= nodes[index].len {
                at -= nodes[index].len;
                index += 1;
            }
            let mut left = node.into_nodes();
            let mut right = left.split_off(index);
            if at == 0 {
                return Sides {
                    left: over(left),
                    cut: None,
                    right: over(right),
                };
            }
            let within = split(right.remove(0), at);
            Sides {
                left: join_sides(over(left), within.left),
                cut: within.cut,
                right: join_sides(within.right, over(right)),
            }
        }
    }
}

fn split_leaf(leaf: Arc<TreeNode>, mut at: u64) -> Sides {
    let Children::Spans(mut left) = Arc::unwrap_or_clone(leaf).children else {
        unreachable!("a leaf holds spans")
    };
    let mut index = 0;
    while index < left.len() && at >= left[index].len() {
        at -= left[index].len();
        index += 1;
    }
    let mut right = left.split_off(index);
    let cut = (at > 0).then(|| (right.remove(0), at));
    let leaf = |spans: Vec<Span>| (!spans.is_empty()).then(|| Arc::new(TreeNode::leaf(spans)));
    Sides {
        left: leaf(left),
        cut,
        right: leaf(right),
    }
}

/// The root over some nodes of one height.
fn over(mut nodes: Vec<Arc<TreeNode>>) -> Option<Arc<TreeNode>> {
    match nodes.len() {
        0 | 1 => nodes.pop(),
        _ => Some(Arc::new(TreeNode::branch(nodes))),
    }
}

fn join_sides(left: Option<Arc<TreeNode>>, right: Option<Arc<TreeNode>>) -> Option<Arc<TreeNode>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(join(left, right)),
        (root, None) | (None, root) => root,
    }
}

/// The spans from first to last.
#[derive(Debug)]
pub(super) struct Spans<'a> {
    /// The rest of each level above the leaf.
    open: Vec<std::slice::Iter<'a, Arc<TreeNode>>>,
    leaf: std::slice::Iter<'a, Span>,
}

impl<'a> Spans<'a> {
    fn descend(&mut self, mut node: &'a TreeNode) {
        loop {
            match &node.children {
                Children::Spans(spans) => {
                    self.leaf = spans.iter();
                    return;
                }
                Children::Nodes(nodes) => {
                    let mut nodes = nodes.iter();
                    let Some(first) = nodes.next() else { return };
                    self.open.push(nodes);
                    node = first;
                }
            }
        }
    }
}

impl<'a> Iterator for Spans<'a> {
    type Item = &'a Span;

    fn next(&mut self) -> Option<&'a Span> {
        loop {
            if let Some(span) = self.leaf.next() {
                return Some(span);
            }
            match self.open.last_mut()?.next() {
                Some(node) => self.descend(node),
                None => {
                    self.open.pop();
                }
            }
        }
    }
}

#[cfg(test)]
impl Tree {
    /// Panics unless the tree is balanced, its sums are right and no adjacent spans can be merged.
    pub(super) fn check_invariants(&self) {
        if let Some(root) = &self.root {
            root.check(true);
        }
        let spans: Vec<_> = self.spans().cloned().collect();
        for pair in spans.windows(2) {
            assert!(
                !pair[0].clone().absorb(&pair[1]),
                "neighbours that could be one: {pair:?}"
            );
        }
    }
}

#[cfg(test)]
impl TreeNode {
    fn check(&self, is_root: bool) {
        let (count, len, bytes) = match &self.children {
            Children::Spans(spans) => {
                assert_eq!(self.height, 0, "a leaf's height");
                assert!(spans.iter().all(|span| span.len() > 0), "no empty span");
                (
                    spans.len(),
                    spans.iter().map(Span::len).sum::<u64>(),
                    spans.iter().map(Span::bytes).sum::<usize>(),
                )
            }
            Children::Nodes(nodes) => {
                for node in nodes {
                    assert_eq!(node.height + 1, self.height, "all leaves are at one depth");
                    node.check(false);
                }
                (
                    nodes.len(),
                    nodes.iter().map(|node| node.len).sum(),
                    nodes.iter().map(|node| node.bytes).sum(),
                )
            }
        };
        assert_eq!((self.len, self.bytes), (len, bytes), "the sums of a node");
        let least = if !is_root {
            CHILDREN_MIN
        } else if self.height > 0 {
            2
        } else {
            1
        };
        assert!((least..=CHILDREN_MAX).contains(&count), "{count} children");
    }
}
