//! Whether a GPU is fit for a model.

use std::sync::Arc;

use conformance::Subject;
use gguf::{Format, Gguf};
use model::{AttentionOp, LlamaConfig, ModelShard};

use crate::memory_fit::{Demand, Limits};
use crate::{LoadOptions, Result};

/// Refuses a device whose memory does not hold the model, that does not run its graph, or that fails the self-test with the
/// model's shapes.
pub(super) fn check<B: Subject>(
    backend: &Arc<B>,
    limits: &Limits,
    weights: u64,
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<()> {
    let shard = ModelShard::new(&config.spec, backend.rank())?;
    let demand = Demand {
        config,
        attention: options.attention,
        ranks: backend.rank().count(),
        num_seqs: config.batch_size,
        kv_memory: options.kv_memory,
        weights,
    };
    demand.check(limits, &|layout| backend.footprint(layout))?;
    backend.check_spec(&shard.spec)?;
    let op = AttentionOp::new(&shard.spec.layers[0].attn, 0);
    Ok(conformance::self_test(backend, main_format(gguf), op, config.kv_dtype)?)
}

/// The format of most of a file's bytes.
fn main_format(gguf: &Gguf) -> Format {
    let bytes_of = |format: Format| {
        let tensors = gguf.tensors().filter(|tensor| tensor.format() == format && tensor.dims().len() == 2);
        tensors.map(|tensor| tensor.data().len()).sum::<usize>()
    };
    Format::ALL.into_iter().max_by_key(|&format| bytes_of(format)).unwrap_or(Format::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    #[test]
    fn the_demo_model_is_of_its_main_format() {
        let gguf = demo::gguf();
        assert_eq!(main_format(&gguf), gguf.tensor("blk.0.ffn_up.weight").unwrap().format());
    }
}
