//! The negative control: a device that breaks the law in the way that is most tempting on real ones. From some number of
//! rows on it splits the inner dimension of a matrix product in two and adds the halves' results.

use std::sync::Arc;

use cpu::{CpuBackend, CpuBuffer, CpuKvCache, CpuMatrix, CpuPlan};
use gguf::TensorView;
use model::{Backend, Batch, BatchLimits, KvShape, Linear, QkvShape, Result, RopeShape};

use super::{Numerics, requests, steps, test_model};

/// The CPU, but for matrix products of at least `from_rows` rows.
pub struct SplitK {
    cpu: Arc<CpuBackend>,
    from_rows: usize,
}

/// The CPU's buffer with the sizes that it keeps to itself.
pub struct Buffer {
    rows: usize,
    cols: usize,
    cpu: CpuBuffer,
}

/// One matrix as the stack of one that the CPU multiplies with.
pub struct Matrix {
    rows: usize,
    cpu: Linear<CpuBackend>,
}

impl SplitK {
    pub fn new(cpu: Arc<CpuBackend>, from_rows: usize) -> Self {
        Self { cpu, from_rows }
    }

    fn read(&self, rows: usize, buffer: &Buffer) -> Vec<f32> {
        let mut values = vec![0.0; rows * buffer.cols];
        self.cpu.read_into(&buffer.cpu, &mut values).expect("the CPU's buffers can be read");
        values
    }

    fn write(&self, buffer: &mut Buffer, mut values: Vec<f32>) {
        values.resize(buffer.rows * buffer.cols, 0.0);
        buffer.cpu = self.cpu.upload(buffer.rows, buffer.cols, &values).expect("memory");
    }

    /// What is multiplied, one after the other: `x`, or `x` with either half of its columns zero.
    fn summands(&self, rows: usize, x: &Buffer) -> Vec<CpuBuffer> {
        let values = self.read(rows, x);
        let keeping = |kept: std::ops::Range<usize>| {
            let keep = |(i, &value): (usize, &f32)| if kept.contains(&(i % x.cols)) { value } else { 0.0 };
            let half: Vec<f32> = values.iter().enumerate().map(keep).collect();
            self.cpu.upload(rows, x.cols, &half).expect("memory")
        };
        match rows < self.from_rows {
            true => vec![keeping(0..x.cols)],
            false => vec![keeping(0..x.cols / 2), keeping(x.cols / 2..x.cols)],
        }
    }
}

impl Backend for SplitK {
    type Buffer = Buffer;
    type Matrix = Matrix;
    type KvCache = CpuKvCache;
    type Plan = CpuPlan;

    fn load(&self, tensor: TensorView<'_>) -> Result<Matrix> {
        let parts = vec![self.cpu.load(tensor)?];
        Ok(Matrix { rows: tensor.rows(), cpu: Linear { parts, bias: None } })
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> u64 {
        self.cpu.matrix_bytes(matrix.cpu())
    }

    fn alloc(&self, rows: usize, cols: usize) -> Result<Buffer> {
        Ok(Buffer { rows, cols, cpu: self.cpu.alloc(rows, cols)? })
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Buffer> {
        Ok(Buffer { rows, cols, cpu: self.cpu.upload(rows, cols, values)? })
    }

    fn matmul(&self, rows: usize, x: &Buffer, weight: &Linear<Self>, out: &mut Buffer) {
        let mut values = vec![0.0; rows * out.cols];
        let summands = self.summands(rows, x);
        let mut first_col = 0;
        for part in &weight.parts {
            let mut product = self.alloc(rows, part.rows).expect("memory");
            for x in &summands {
                self.cpu.matmul(rows, x, &part.cpu, &mut product.cpu);
                let product = self.read(rows, &product);
                for (out, product) in values.chunks_mut(out.cols).zip(product.chunks(part.rows)) {
                    out[first_col..].iter_mut().zip(product).for_each(|(out, product)| *out += product);
                }
            }
            first_col += part.rows;
        }
        if let Some(bias) = &weight.bias {
            let bias = self.read(1, bias);
            values.chunks_mut(out.cols).for_each(|out| out.iter_mut().zip(&bias).for_each(|(o, b)| *o += b));
        }
        self.write(out, values);
    }

    // The rest is the CPU's.

    fn alloc_kv_cache(&self, shape: KvShape) -> Result<CpuKvCache> {
        self.cpu.alloc_kv_cache(shape)
    }

    fn alloc_plan(&self, limits: BatchLimits, shape: QkvShape) -> Result<CpuPlan> {
        self.cpu.alloc_plan(limits, shape)
    }

    fn plan(&self, batch: &Batch, plan: &mut CpuPlan) -> Result<()> {
        self.cpu.plan(batch, plan)
    }

    fn embed(&self, plan: &CpuPlan, table: &Matrix, out: &mut Buffer) {
        self.cpu.embed(plan, table.cpu(), &mut out.cpu);
    }

    fn rms_norm(&self, rows: usize, x: &Buffer, weight: &Buffer, eps: f32, out: &mut Buffer) {
        self.cpu.rms_norm(rows, &x.cpu, &weight.cpu, eps, &mut out.cpu);
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut Buffer,
        delta: &Buffer,
        weight: &Buffer,
        eps: f32,
        out: &mut Buffer,
    ) {
        self.cpu.add_rms_norm(rows, &mut x.cpu, &delta.cpu, &weight.cpu, eps, &mut out.cpu);
    }

    fn add(&self, rows: usize, x: &mut Buffer, delta: &Buffer) {
        self.cpu.add(rows, &mut x.cpu, &delta.cpu);
    }

    fn rope_store_kv(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        rope: RopeShape,
        table: &Buffer,
        qkv: &mut Buffer,
        cache: &mut CpuKvCache,
        layer: usize,
    ) {
        self.cpu.rope_store_kv(plan, shape, rope, &table.cpu, &mut qkv.cpu, cache, layer);
    }

    fn paged_attention(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        qkv: &Buffer,
        cache: &CpuKvCache,
        layer: usize,
        out: &mut Buffer,
    ) {
        self.cpu.paged_attention(plan, shape, &qkv.cpu, cache, layer, &mut out.cpu);
    }

    fn attention_scores(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        qkv: &Buffer,
        cache: &CpuKvCache,
        layer: usize,
        scores: &mut Buffer,
    ) {
        self.cpu.attention_scores(plan, shape, &qkv.cpu, cache, layer, &mut scores.cpu);
    }

    fn attention_softmax(&self, plan: &CpuPlan, shape: QkvShape, scores: &mut Buffer) {
        self.cpu.attention_softmax(plan, shape, &mut scores.cpu);
    }

    fn attention_values(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        scores: &Buffer,
        cache: &CpuKvCache,
        layer: usize,
        out: &mut Buffer,
    ) {
        self.cpu.attention_values(plan, shape, &scores.cpu, cache, layer, &mut out.cpu);
    }

    fn swiglu(&self, rows: usize, gate_up: &Buffer, out: &mut Buffer) {
        self.cpu.swiglu(rows, &gate_up.cpu, &mut out.cpu);
    }

    fn gather_rows(&self, plan: &CpuPlan, x: &Buffer, out: &mut Buffer) {
        self.cpu.gather_rows(plan, &x.cpu, &mut out.cpu);
    }

    fn read_into(&self, buffer: &Buffer, out: &mut [f32]) -> Result<()> {
        self.cpu.read_into(&buffer.cpu, out)
    }
}

impl Matrix {
    fn cpu(&self) -> &CpuMatrix {
        &self.cpu.parts[0]
    }
}

/// Splitting always or never depends on no batch: so it is the law that the checks guard, and not one way of summing.
const LAWFUL: [usize; 2] = [1, usize::MAX];
/// Splitting only what has several rows breaks the law.
const UNLAWFUL: usize = 2;

fn split_k(numerics: Numerics, from_rows: usize) -> impl Fn(usize) -> Arc<SplitK> {
    move |threads| Arc::new(SplitK::new(numerics.cpu_backend(threads), from_rows))
}

#[test]
fn steps_tell_a_device_that_breaks_the_law() {
    let numerics = Numerics::usual();
    let conditions = steps::Conditions {
        threads: 2,
        page_size: 4,
        max_tokens: 16,
        max_seqs: 4,
        max_chunk: 8,
        spare_pages: 16,
        copies: 1,
        seed: 1,
    };
    for name in ["f32", "q8_0", "everything_q8_0"] {
        let model = test_model(name);
        let sequences = steps::sequences(&model, &[1, 5, 20]);
        let check = |from_rows| {
            let backend = split_k(numerics, from_rows);
            let want = steps::alone(backend(1), &model, numerics, &sequences);
            steps::check(backend(2), &model, numerics, (&sequences, &want), &conditions)
        };
        for from_rows in LAWFUL {
            assert_eq!(check(from_rows), Ok(()), "{name}: splitting from {from_rows} rows on");
        }
        let difference = check(UNLAWFUL).expect_err("a difference");
        assert!(difference.contains("position"), "{difference}");
    }
}

#[test]
fn requests_tell_a_device_that_breaks_the_law() {
    let numerics = Numerics::usual();
    let model = test_model("demo");
    let requests = requests::fixed(4);
    let check = |from_rows| {
        let backend = split_k(numerics, from_rows);
        let want = requests::alone(backend(1), &model, numerics, &requests);
        requests::check(backend(2), &model, numerics, (&requests, &want), &requests::Conditions::roomy())
    };
    for from_rows in LAWFUL {
        assert!(check(from_rows).is_ok(), "splitting from {from_rows} rows on");
    }
    let difference = check(UNLAWFUL).expect_err("a difference");
    assert!(difference.contains("request"), "{difference}");
}
