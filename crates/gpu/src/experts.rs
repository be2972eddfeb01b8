//! Layers with experts: the weights of all experts of a product, and the routes of a step, which stay on the device.
//!
//! A product takes the pairs of tokens and experts in groups of one expert. The host does not know how many groups there are: it
//! dispatches as many as there may be, and those beyond do nothing.

use std::sync::Arc;

use gguf::{Format, TensorView};
use model::{Error, Gating, Result, RoutesShape, Routing};
use pack::TILE_ROWS;

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::kernel::KernelSpec;
use crate::product::with_planes;
use crate::recorder::Recorder;

/// Most experts of a layer: the kernel that sorts pairs counts them in workgroup memory.
pub(crate) const MAX_EXPERTS: usize = 512;

/// Pairs that a workgroup of a product takes.
pub(crate) const GROUPS: [usize; 3] = [1, 4, 8];

/// Most bytes of weights that are on their way to the device at a time.
const STAGED_BYTES: usize = 128 << 20;

/// The weights of all experts, of one product: stacked matrices, each with one for each expert.
pub struct GpuExperts {
    pub(crate) parts: Vec<ExpertMatrix>,
}

/// A matrix for each expert, rows padded to whole tiles.
pub(crate) struct ExpertMatrix {
    pub format: Format,
    /// Of an expert.
    pub rows: usize,
    pub cols: usize,
    /// Runs of experts that the device can bind.
    pub slices: Vec<ExpertSlice>,
}

pub(crate) struct ExpertSlice {
    pub first_expert: usize,
    pub experts: usize,
    /// In the order of the format's planes.
    pub planes: Vec<DeviceBuffer>,
}

impl ExpertMatrix {
    /// Brings matrices of one format and shape to the device.
    ///
    /// # Errors
    /// When formats differ, an expert is larger than a binding may be, or the device has no memory left.
    pub fn load(gpu: &Gpu, recorder: &Arc<Recorder>, experts: &[TensorView<'_>]) -> Result<Self> {
        let first = &experts[0];
        let (format, rows, cols) = (first.format(), first.rows(), first.cols());
        if let Some(other) = experts.iter().find(|expert| expert.format() != format) {
            return Err(Error::InvalidValue {
                what: format!("format of {}", other.name()),
                expected: format!("{format}, that of {}", first.name()),
                found: other.format().to_string(),
            });
        }
        let limit = gpu.capabilities().max_binding_bytes as usize;
        let expert_bytes =
            |plane: &pack::Plane| 4 * plane.words_per_row_tile(cols) * rows.div_ceil(TILE_ROWS);
        let planes = pack::planes_of(format);
        let widest = planes.iter().map(expert_bytes).max().expect("a format has planes");
        let per_slice = (limit / widest).min(experts.len());
        if per_slice == 0 {
            return Err(Error::InvalidValue {
                what: format!("tensor {}: bytes of an expert", first.name()),
                expected: format!("at most {limit}, the device's largest binding"),
                found: widest.to_string(),
            });
        }
        let (mut slices, mut staged) = (Vec::new(), 0);
        for (slice_idx, experts) in experts.chunks(per_slice).enumerate() {
            let buffer = |plane: &pack::Plane| {
                DeviceBuffer::new(gpu, recorder, first.name(), (expert_bytes(plane) * experts.len()) as u64)
            };
            let buffers = planes.iter().map(buffer).collect::<Result<Vec<_>>>()?;
            for (expert_idx, expert) in experts.iter().enumerate() {
                let packed = pack::pack(format, expert.data(), cols);
                for (buffer, (_, words)) in buffers.iter().zip(packed) {
                    let offset = (expert_idx * words.len() * 4) as u64;
                    gpu.queue.write_buffer(&buffer.raw, offset, bytemuck::cast_slice(&words));
                    staged += words.len() * 4;
                }
                if staged >= STAGED_BYTES {
                    gpu.queue.submit([]);
                    gpu.wait()?;
                    staged = 0;
                }
            }
            let first_expert = slice_idx * per_slice;
            slices.push(ExpertSlice { first_expert, experts: experts.len(), planes: buffers });
        }
        gpu.queue.submit([]);
        gpu.check()?;
        Ok(Self { format, rows, cols, slices })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        let experts = self.slices.iter().map(|slice| slice.experts as u64).sum::<u64>();
        experts * pack::packed_bytes(self.format, self.rows, self.cols)
    }
}

/// The experts of a step's tokens, on the device.
pub struct GpuRoutes {
    pub(crate) shape: RoutesShape,
    /// Of the step.
    pub(crate) tokens: usize,
    pub(crate) ids: DeviceBuffer,     // [P], the expert of each pair
    pub(crate) weights: DeviceBuffer, // [P]
    pub(crate) order: DeviceBuffer,   // [P], by expert
    pub(crate) groups: DeviceBuffer,  // [1 + 3 P]
}

impl GpuRoutes {
    /// # Errors
    /// When there are more experts than kernels count, or the device has no memory left.
    pub(crate) fn new(gpu: &Gpu, recorder: &Arc<Recorder>, shape: RoutesShape) -> Result<Self> {
        check_experts(shape.num_experts)?;
        let [pairs, groups] = buffer_words(shape);
        let buffer = |words: usize| DeviceBuffer::new(gpu, recorder, "routes", words as u64 * 4);
        Ok(Self {
            shape,
            tokens: 0,
            ids: buffer(pairs)?,
            weights: buffer(pairs)?,
            order: buffer(pairs)?,
            groups: buffer(groups)?,
        })
    }

    /// Bytes on the device.
    pub(crate) fn bytes(shape: RoutesShape) -> u64 {
        let [pairs, groups] = buffer_words(shape).map(|words| DeviceBuffer::rounded(words as u64 * 4));
        3 * pairs + groups
    }

    /// Of the step.
    pub(crate) fn pairs(&self) -> usize {
        self.tokens * self.shape.top_k
    }

    /// Pairs that a workgroup of a product takes: about as many as an expert has.
    pub(crate) fn group(&self) -> usize {
        let of_expert =
            if self.tokens <= 1 { 1 } else { self.pairs().div_ceil(self.shape.num_experts).max(2) };
        let fits = |group: &usize| *group >= of_expert;
        GROUPS.into_iter().find(fits).unwrap_or(GROUPS[GROUPS.len() - 1])
    }

    /// The most groups that the step can have.
    pub(crate) fn max_groups(&self) -> usize {
        let pairs = self.pairs();
        pairs.min(self.shape.num_experts.min(pairs) + pairs / self.group())
    }
}

/// Words of the buffers that have one for each pair, and of the groups.
fn buffer_words(shape: RoutesShape) -> [usize; 2] {
    [shape.max_pairs(), 1 + 3 * shape.max_pairs()]
}

/// # Errors
/// When there are more experts than kernels count.
pub(crate) fn check_experts(num_experts: usize) -> Result<()> {
    if num_experts <= MAX_EXPERTS {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: "experts of a layer".to_owned(),
        expected: format!("at most {MAX_EXPERTS} on a GPU"),
        found: num_experts.to_string(),
    })
}

/// The kernel that routes.
pub(crate) fn route_spec(routing: Routing) -> KernelSpec {
    KernelSpec::new("route")
        .with_flag("SELECTED", routing.gating == Gating::SoftmaxOfSelected)
        .with_flag("NORM", routing.norm)
}

/// The kernel that sorts pairs.
pub(crate) fn sort_spec() -> KernelSpec {
    KernelSpec::new("sort_pairs").with("MAX_EXPERTS", MAX_EXPERTS)
}

/// The kernel that multiplies groups of so many pairs with weights of a format.
pub(crate) fn product_spec(format: Format, group: usize, has_bias: bool) -> KernelSpec {
    let first = 2 + pack::planes_of(format).len();
    let spec = with_planes(KernelSpec::new("matmul_experts").with("TOKENS", group), format)
        .with("ORDER", first)
        .with("GROUPS", first + 1);
    if has_bias { spec.with("BIAS", first + 2) } else { spec }
}

/// The kernel that adds outputs up, with that of a shared expert, with a gate.
pub(crate) fn combine_spec(shared: bool, gate: bool) -> KernelSpec {
    KernelSpec::new("combine_experts").with_flag("SHARED", shared).with_flag("GATE", gate)
}
