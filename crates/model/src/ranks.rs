//! Tensor parallel: which part of a model each device of a group computes.
//!
//! The devices of a group, its *ranks*, run one model together. Every matrix is cut by output rows and the KV cache by heads; a rank
//! computes its columns of a row, whole sums each, and the ranks gather them ([`Backend::all_gather`](crate::Backend::all_gather)).
//! Nothing is summed across ranks, so the results are the bits of one device.

use std::ops::Range;
use std::sync::OnceLock;

use crate::check::check;
use crate::{AttentionSpec, Error, FfnSpec, ModelSpec, Result};

/// A device's place in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    idx: usize,
    count: usize,
}

impl Rank {
    /// The place of a device without a group.
    pub const ONLY: Self = Self { idx: 0, count: 1 };

    /// The place `idx` of `count`.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn new(idx: usize, count: usize) -> Self {
        assert!(idx < count, "rank {idx} of {count}");
        Self { idx, count }
    }

    /// Its number, from 0 on.
    pub fn idx(self) -> usize {
        self.idx
    }

    /// Ranks of the group.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether there are no others.
    pub fn is_only(self) -> bool {
        self.count == 1
    }
}

/// Why a rank of a group has left it, if one has. The first reason counts.
#[derive(Debug, Default)]
pub struct Departure(OnceLock<String>);

impl Departure {
    /// A rank leaves.
    pub fn set(&self, rank: Rank, reason: &str) {
        let _ = self.0.set(format!("rank {} of {}: {reason}", rank.idx, rank.count));
    }

    /// Whether all are still there.
    ///
    /// # Errors
    /// Says which has left, and why.
    pub fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |reason| Err(Error::Device(reason.clone())))
    }
}

/// Which columns of a row each rank computes: consecutive ones, in the order of the ranks, at least one each. The first rank has
/// the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    starts: Vec<usize>, // [ranks + 1]
}

/// Where shards may begin, unless there are too few columns: weights lie in tiles of so many rows.
const TILE: usize = 16;

impl Shards {
    /// Shards of so many columns each.
    pub fn new(widths: impl IntoIterator<Item = usize>) -> Self {
        let mut starts = vec![0];
        starts.extend(widths.into_iter().scan(0, |end, width| {
            *end += width;
            Some(*end)
        }));
        Self { starts }
    }

    /// Equal shards of `cols` columns, as far as that can be.
    fn even(what: &str, cols: usize, ranks: usize) -> Result<Self> {
        check(ranks <= cols, "tensor parallel", format_args!("at most {cols} ranks, the {what}"), ranks)?;
        let unit = if cols >= ranks * TILE { TILE } else { 1 };
        let units = cols.div_ceil(unit);
        let start = |rank| (shares(units, ranks, rank) * unit).min(cols);
        Ok(Self { starts: (0..=ranks).map(start).collect() })
    }

    /// `[ranks + 1]`: the first column of each rank, and the number of all.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The columns of a rank.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn of(&self, rank: usize) -> Range<usize> {
        self.starts[rank]..self.starts[rank + 1]
    }

    /// The columns of all ranks.
    pub fn cols(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }
}

/// What the first `places` of `of` places get of `total`: equal shares, and one more for the first ones if it does not divide.
fn shares(total: usize, of: usize, places: usize) -> usize {
    total / of * places + places.min(total % of)
}

/// A model as one rank runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShard {
    /// Which rank.
    pub rank: Rank,
    /// The model with this rank's heads and inner widths. Everything else, as the width of the residual stream and the vocabulary, is that of
    /// the whole.
    pub spec: ModelSpec,
    /// Columns of the residual stream.
    pub hidden: Shards,
    /// Rows of the LM head.
    pub vocab: Shards,
    /// Of each layer.
    pub layers: Vec<LayerShards>,
}

/// How a layer is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShards {
    /// Columns of the queries and of the attention's output.
    pub attended: Shards,
    /// This rank's key and value heads. Ranks that share one have it both.
    pub kv_heads: Range<usize>,
    /// Columns between the products of the feed-forward layer, or of each expert.
    pub activated: Shards,
    /// The same of the expert that every token takes.
    pub shared: Option<Shards>,
}

impl ModelShard {
    /// The part of a model that is a rank's.
    ///
    /// # Errors
    /// When there are more ranks than the model can be cut into.
    pub fn new(spec: &ModelSpec, rank: Rank) -> Result<Self> {
        let (idx, count) = (rank.idx(), rank.count());
        let mut own = spec.clone();
        let mut layers = Vec::with_capacity(own.layers.len());
        for layer in &mut own.layers {
            let (attended, kv_heads) = heads(&layer.attn, rank)?;
            layer.attn.num_heads = attended.of(idx).len() / layer.attn.head_dim;
            layer.attn.num_kv_heads = kv_heads.len();
            let activated = Shards::even("feed-forward layer's width", layer.ffn.inner(), count)?;
            let mut shared = None;
            match &mut layer.ffn {
                FfnSpec::Dense { inner, .. } => *inner = activated.of(idx).len(),
                FfnSpec::Experts(experts) => {
                    experts.inner = activated.of(idx).len();
                    if let Some(expert) = &mut experts.shared {
                        let shards = Shards::even("shared expert's width", expert.inner, count)?;
                        expert.inner = shards.of(idx).len();
                        shared = Some(shards);
                    }
                }
            }
            layers.push(LayerShards { attended, kv_heads, activated, shared });
        }
        Ok(Self {
            rank,
            spec: own,
            hidden: Shards::even("hidden size", spec.hidden_size, count)?,
            vocab: Shards::even("vocabulary", spec.vocab_size, count)?,
            layers,
        })
    }
}

/// The columns of each rank's queries, and this rank's key and value heads.
///
/// Queries go with the keys that they attend to. Of at least as many key heads as ranks, each rank has some with all of their queries;
/// of fewer, some ranks share a key head, each with some of its queries. The first rank has the most of either.
fn heads(attn: &AttentionSpec, rank: Rank) -> Result<(Shards, Range<usize>)> {
    let &AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = attn;
    let (idx, count) = (rank.idx(), rank.count());
    let expected = format_args!("at most {num_heads} ranks, the attention heads of a layer").to_string();
    check(count <= num_heads, "tensor parallel", expected, count)?;
    let group = num_heads / num_kv_heads * head_dim;
    if count <= num_kv_heads {
        let first = |rank| shares(num_kv_heads, count, rank);
        let widths = (0..count).map(|rank| (first(rank + 1) - first(rank)) * group);
        return Ok((Shards::new(widths), first(idx)..first(idx + 1)));
    }
    let group = num_heads / num_kv_heads;
    let (mut widths, mut kv_of_rank) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for kv_head in 0..num_kv_heads {
        // The last key heads have a rank more if it does not divide.
        let sharers = count / num_kv_heads + usize::from(kv_head >= num_kv_heads - count % num_kv_heads);
        for place in 0..sharers {
            let queries = shares(group, sharers, place + 1) - shares(group, sharers, place);
            widths.push(queries * head_dim);
            kv_of_rank.push(kv_head);
        }
    }
    Ok((Shards::new(widths), kv_of_rank[idx]..kv_of_rank[idx] + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attn(num_heads: usize, num_kv_heads: usize) -> AttentionSpec {
        AttentionSpec::plain(num_heads, num_kv_heads, 10)
    }

    #[test]
    fn columns_are_cut_at_tiles_where_there_are_enough() {
        let starts = |cols, ranks| Shards::even("x", cols, ranks).unwrap().starts;
        assert_eq!(starts(75, 1), [0, 75]);
        assert_eq!(starts(75, 2), [0, 48, 75]);
        assert_eq!(starts(128, 4), [0, 32, 64, 96, 128]);
        assert_eq!(starts(35, 3), [0, 12, 24, 35]);
        assert_eq!(starts(3, 3), [0, 1, 2, 3]);
        let error = Shards::even("hidden size", 2, 3).unwrap_err().to_string();
        assert_eq!(error, "tensor parallel: expected at most 2 ranks, the hidden size, found 3");
    }

    /// Whatever the numbers: every query has its key, each rank has whole groups of one size, and the first has the most.
    #[test]
    fn queries_go_with_their_keys() {
        for (num_kv_heads, group) in [(1, 1), (1, 8), (2, 3), (3, 2), (4, 4), (8, 4), (5, 1), (2, 7)] {
            let num_heads = num_kv_heads * group;
            for count in 1..=num_heads {
                let attn = attn(num_heads, num_kv_heads);
                let of_rank = |idx| heads(&attn, Rank::new(idx, count)).unwrap();
                let (most_queries, most_keys) = (of_rank(0).0.of(0).len(), of_rank(0).1.len());
                assert_eq!(of_rank(0).0.cols(), num_heads * 10);
                for idx in 0..count {
                    let (attended, keys) = of_rank(idx);
                    let queries = attended.of(idx).start / 10..attended.of(idx).end / 10;
                    assert!(
                        !queries.is_empty() && queries.len() * 10 <= most_queries && keys.len() <= most_keys
                    );
                    let own_group = queries.len() / keys.len();
                    assert_eq!(own_group * keys.len(), queries.len());
                    for (place, query) in queries.enumerate() {
                        assert_eq!(
                            keys.start + place / own_group,
                            query / group,
                            "{num_heads} {count} {idx}"
                        );
                    }
                }
            }
            assert!(heads(&attn(num_heads, num_kv_heads), Rank::new(0, num_heads + 1)).is_err());
        }
    }
}
