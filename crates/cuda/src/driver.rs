//! The driver's interface, made safe: a card's context and queue, memory, modules, launches.
//!
//! A kernel reads and writes the card's memory alone, by addresses that belong to no object of this process. A wrong address is a
//! failed step, not undefined behaviour here; so launching is safe, and only the calls themselves are not.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys;
use model::{Error, Result};

/// A call of the driver, and what it is in an error.
fn call(what: &str, result: sys::CUresult) -> Result<()> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(Error::Device(format!("CUDA: {what}: {}", name_of(error)))),
    }
}

fn name_of(error: sys::CUresult) -> String {
    let mut text = ptr::null();
    // SAFETY: the driver writes a pointer to a constant of its own, or null for an error that it does not know.
    let known = unsafe { sys::cuGetErrorString(error, &raw mut text) };
    if known != sys::CUresult::CUDA_SUCCESS || text.is_null() {
        return format!("error {}", error as u32);
    }
    // SAFETY: of a known error the driver gives a text that ends with a zero byte and lives as long as the process.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Whether the driver's library is there.
pub(crate) fn is_present() -> bool {
    // SAFETY: looking for the library runs its initialisers alone.
    unsafe { sys::is_culib_present() }
}

/// Makes the driver ready, and tells its version: 1000 times the major one and 10 times the minor one.
///
/// # Errors
/// When there is no card, or the driver does not fit the system's kernel. The library must be there.
pub(crate) fn initialize() -> Result<u32> {
    // SAFETY: takes no pointer.
    call("initialising the driver", unsafe { sys::cuInit(0) })?;
    let mut version: c_int = 0;
    // SAFETY: writes a number.
    call("asking for its version", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    Ok(version.unsigned_abs())
}

/// How many cards there are.
pub(crate) fn count() -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: writes a number.
    call("counting cards", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A card, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCard(sys::CUdevice);

impl RawCard {
    pub fn new(index: usize) -> Result<Self> {
        let mut device: sys::CUdevice = 0;
        // SAFETY: writes a number.
        call("finding a card", unsafe { sys::cuDeviceGet(&raw mut device, index as c_int) })?;
        Ok(Self(device))
    }

    pub fn name(self) -> Result<String> {
        let mut bytes = [0u8; 256];
        let size = bytes.len() as c_int;
        // SAFETY: writes at most `size` bytes, the last of them zero.
        let result = unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr().cast(), size, self.0) };
        call("asking for a card's name", result)?;
        Ok(CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned())
    }

    pub fn attribute(self, attribute: sys::CUdevice_attribute) -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: writes a number.
        let result = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, self.0) };
        call("asking for an attribute", result)?;
        Ok(value.unsigned_abs())
    }

    pub fn total_memory(self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: writes a number.
        call("asking for memory", unsafe { sys::cuDeviceTotalMem_v2(&raw mut bytes, self.0) })?;
        Ok(bytes as u64)
    }
}

/// A card in use: its context, and one queue that everything goes through in order.
#[derive(Debug)]
pub(crate) struct Context {
    card: RawCard,
    context: sys::CUcontext,
    queue: sys::CUstream,
    /// Whether a kernel may start while the one before it runs. Kernels wait for it themselves (`await_previous`).
    overlaps: bool,
}

// SAFETY: contexts and queues of the driver may be used from any thread, also from several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens a card; `overlaps`: its kernels may start while the one before them runs, as all of them wait for it.
    pub fn new(card: RawCard, overlaps: bool) -> Result<Arc<Self>> {
        let mut context = ptr::null_mut();
        // SAFETY: writes a handle, which `drop` gives back.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, card.0) };
        call("opening the card", result)?;
        let mut this = Self { card, context, queue: ptr::null_mut(), overlaps };
        this.enter()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes a handle, which `drop` gives back.
        call("making a queue", unsafe { sys::cuStreamCreate(&raw mut this.queue, flags) })?;
        Ok(Arc::new(this))
    }

    /// Makes the context that of the calling thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        call("entering the context", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    /// Free and total bytes of memory.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        call("asking for memory", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free as u64, total as u64))
    }

    /// Lets kernels of this context read and write the memory of another. The names are for the error.
    ///
    /// # Errors
    /// When the cards do not reach each other.
    pub fn reach(&self, other: &Self, own_name: &str, other_name: &str) -> Result<()> {
        if self.card.0 == other.card.0 {
            return Ok(());
        }
        let mut reaches: c_int = 0;
        // SAFETY: writes a number.
        let result = unsafe { sys::cuDeviceCanAccessPeer(&raw mut reaches, self.card.0, other.card.0) };
        call("asking whether cards reach each other", result)?;
        if reaches == 0 {
            let expected = "tensor parallel: expected cards that reach one another's memory (NVLink, or PCIe peer to peer)";
            return Err(Error::Device(format!(
                "{expected}, found {own_name}, which does not reach {other_name}"
            )));
        }
        self.enter()?;
        // SAFETY: both contexts live as long as the process or their owners.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context, 0) } {
            sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(()),
            result => call("reaching another card's memory", result),
        }
    }

    /// Waits for everything that was queued.
    pub fn wait(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the queue lives as long as `self`.
        call("waiting for the card", unsafe { sys::cuStreamSynchronize(self.queue) })
    }

    /// Queues a kernel with so much dynamic memory, at most what it was made for.
    pub fn launch(&self, kernel: &Kernel, grid: [u32; 3], shared_bytes: u32, args: &[Arg<'_>]) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.enter()?;
        let mut pointers = [ptr::null_mut::<c_void>(); 16];
        for (pointer, arg) in pointers.iter_mut().zip(args) {
            *pointer = match arg {
                Arg::Word(value) => ptr::from_ref(value).cast_mut().cast(),
                Arg::Long(value) => ptr::from_ref(value).cast_mut().cast(),
                Arg::Struct(words) => words.as_ptr().cast_mut().cast(),
            };
        }
        assert!(args.len() <= pointers.len(), "{}: too many arguments", kernel.name);
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: kernel.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared_bytes,
            hStream: self.queue,
            attrs: &raw mut attribute,
            numAttrs: u32::from(self.overlaps),
        };
        // SAFETY: the driver copies as many bytes from each pointer as the kernel's parameter has, before it returns. `args` are
        // the kernel's own by the tests of every operation; kernel, queue and attribute live.
        let result = unsafe {
            sys::cuLaunchKernelEx(&raw const config, kernel.function, pointers.as_mut_ptr(), ptr::null_mut())
        };
        call(kernel.name, result)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.enter().is_ok() && !self.queue.is_null() {
            // SAFETY: nobody else has the queue; the driver finishes what is in it.
            unsafe { sys::cuStreamDestroy_v2(self.queue) };
        }
        // SAFETY: gives back what `new` took.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.card.0) };
    }
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    /// Four bytes: a number, or a float's bits.
    Word(u32),
    /// Eight bytes: an address.
    Long(u64),
    /// A structure of so many.
    Struct(&'a [u64]),
}

impl From<u32> for Arg<'_> {
    fn from(value: u32) -> Self {
        Self::Word(value)
    }
}

impl From<usize> for Arg<'_> {
    /// # Panics
    /// When it is more than kernels count.
    fn from(value: usize) -> Self {
        Self::Word(u32::try_from(value).expect("sizes fit 32 bits"))
    }
}

impl From<f32> for Arg<'_> {
    fn from(value: f32) -> Self {
        Self::Word(value.to_bits())
    }
}

impl From<u64> for Arg<'_> {
    fn from(value: u64) -> Self {
        Self::Long(value)
    }
}

/// Some of a card's memory.
#[derive(Debug)]
pub(crate) struct Memory {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// Zeros. `what` names it in errors.
    ///
    /// # Errors
    /// When the card has not as much left.
    pub fn new(context: &Arc<Context>, what: &str, bytes: u64) -> Result<Self> {
        context.enter()?;
        let out_of_memory = || Error::OutOfMemory { what: what.to_owned(), needed: bytes };
        let bytes = usize::try_from(Self::rounded(bytes)).map_err(|_| out_of_memory())?;
        let mut address = 0;
        // SAFETY: writes an address, which `drop` gives back.
        match unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) } {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(out_of_memory()),
            result => call("allocating memory", result)?,
        }
        let this = Self { context: Arc::clone(context), address, bytes };
        this.clear()?;
        Ok(this)
    }

    /// What is taken for so many bytes.
    pub fn rounded(bytes: u64) -> u64 {
        bytes.max(1).checked_next_multiple_of(512).unwrap_or(u64::MAX)
    }

    /// Its address on the card.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Queues zeros for all of it.
    pub fn clear(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: writes the memory alone, in the order of the queue that all of its users are in.
        let result = unsafe { sys::cuMemsetD8Async(self.address, 0, self.bytes, self.context.queue) };
        call("clearing memory", result)
    }

    /// Queues a copy of `words` to the memory, `offset` bytes from its start. They are not needed when it returns.
    ///
    /// # Panics
    /// When they go beyond the end.
    pub fn write(&self, offset: usize, words: &[u32]) -> Result<()> {
        let bytes = size_of_val(words);
        assert!(offset <= self.bytes && bytes <= self.bytes - offset, "memory of {} bytes", self.bytes);
        self.context.enter()?;
        let to = self.address + offset as u64;
        // SAFETY: the range is within the memory, and the source is ordinary memory, which the driver has copied when it
        // returns.
        let result =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, words.as_ptr().cast(), bytes, self.context.queue) };
        call("writing memory", result)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: nobody else has the address; the driver waits for the kernels that use it.
            unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// How the card's copy engine reads boxes of a matrix of halves (compute capability 9.0).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenMap(sys::CUtensorMap);

impl TokenMap {
    /// Halves of a row, and rows, of a box (`copy_box` in `wide.cuh`).
    const BOX: [u32; 2] = [64, 32];

    /// Of `rows x cols` halves in `memory`.
    ///
    /// # Panics
    /// When they are not in it.
    pub fn new(memory: &Memory, (rows, cols): (usize, usize)) -> Result<Self> {
        assert!(2 * rows * cols <= memory.bytes, "a map of {rows} x {cols} halves");
        let mut map = MaybeUninit::uninit();
        let (dims, strides, steps) = ([cols as u64, rows as u64], [2 * cols as u64], [1, 1]);
        // SAFETY: the driver reads as many numbers as the map has dimensions (one less of strides) and writes the map, which holds
        // the address alone.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                dims.len() as u32,
                memory.address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                Self::BOX.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        call("describing a matrix to the copy engine", result)?;
        // SAFETY: written, as the call succeeded.
        Ok(Self(unsafe { map.assume_init() }))
    }

    /// The words of a kernel's parameter.
    pub fn words(&self) -> &[u64] {
        &self.0.opaque
    }
}

/// Memory of the host that the card writes to directly.
#[derive(Debug)]
pub(crate) struct HostWords {
    context: Arc<Context>,
    pointer: *mut c_void,
    len: usize,
}

// SAFETY: a plain block of memory, owned.
unsafe impl Send for HostWords {}

impl HostWords {
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.enter()?;
        let mut pointer = ptr::null_mut();
        // SAFETY: writes a pointer to so many bytes, which `drop` gives back.
        let result = unsafe { sys::cuMemHostAlloc(&raw mut pointer, len.max(1) * 4, 0) };
        call("allocating memory of the host", result)?;
        // SAFETY: the memory has so many bytes.
        unsafe { ptr::write_bytes(pointer.cast::<u8>(), 0, len.max(1) * 4) };
        Ok(Self { context: Arc::clone(context), pointer, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies words of the card's memory to here, and waits. Of each: the memory, its first word, where they go, and how many.
    ///
    /// # Panics
    /// When one is beyond either end.
    pub fn read(&mut self, copies: &[(&Memory, usize, usize, usize)]) -> Result<&[f32]> {
        self.context.enter()?;
        for &(memory, first, to, count) in copies {
            assert!(first + count <= memory.bytes / 4 && to + count <= self.len, "read: out of range");
            let from = memory.address + first as u64 * 4;
            // SAFETY: both ranges are checked, and `self` is borrowed until the wait below.
            let result = unsafe {
                let to = self.pointer.cast::<f32>().add(to).cast();
                sys::cuMemcpyDtoHAsync_v2(to, from, count * 4, self.context.queue)
            };
            call("reading memory", result)?;
        }
        self.context.wait()?;
        // SAFETY: the memory has so many floats, all written since it was made; every bit pattern is a float.
        Ok(unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.len) })
    }
}

impl Drop for HostWords {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: nobody else has the pointer, and no copy is under way: `read` waits.
            unsafe { sys::cuMemFreeHost(self.pointer) };
        }
    }
}

/// A word of the host's memory that kernels of all cards read, and the host sets.
#[derive(Debug)]
pub(crate) struct HostFlag(HostWords);

// SAFETY: the word is only reached as an atomic.
unsafe impl Sync for HostFlag {}

impl HostFlag {
    /// A word that is zero.
    pub fn new(context: &Arc<Context>) -> Result<Self> {
        HostWords::new(context, 1).map(Self)
    }

    /// Its address, on all cards and the host.
    pub fn address(&self) -> u64 {
        self.0.pointer as u64
    }

    /// Makes it one.
    pub fn set(&self) {
        // SAFETY: the word is aligned, lives as long as `self`, and the host reaches it in this way alone.
        unsafe { AtomicU32::from_ptr(self.0.pointer.cast()) }.store(1, Ordering::SeqCst);
    }
}

/// Compiled kernels, on a card.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    module: sys::CUmodule,
}

// SAFETY: modules of the driver may be used from any thread, also from several at once.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Brings an image (cubin, or PTX with a zero byte at its end) to the card.
    pub fn new(context: &Arc<Context>, image: &[u8]) -> Result<Self> {
        context.enter()?;
        let mut module = MaybeUninit::uninit();
        // SAFETY: an image states its own size, or ends with a zero byte, and is one that `build.py` made.
        call("loading kernels", unsafe {
            sys::cuModuleLoadData(module.as_mut_ptr(), image.as_ptr().cast())
        })?;
        // SAFETY: written, as the call succeeded.
        Ok(Self { context: Arc::clone(context), module: unsafe { module.assume_init() } })
    }

    /// A kernel of the module, for blocks of so many threads with so much dynamic memory.
    pub fn kernel(self: &Arc<Self>, name: &'static CStr, threads: u32, shared_bytes: u32) -> Result<Kernel> {
        self.context.enter()?;
        let mut function = ptr::null_mut();
        // SAFETY: writes a handle that lives as long as the module; the name ends with a zero byte.
        let result = unsafe { sys::cuModuleGetFunction(&raw mut function, self.module, name.as_ptr()) };
        let name = name.to_str().expect("names of kernels are ASCII");
        call(name, result)?;
        if shared_bytes > 0 {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: takes a handle and numbers.
            call(name, unsafe { sys::cuFuncSetAttribute(function, attribute, shared_bytes as c_int) })?;
        }
        Ok(Kernel { _module: Arc::clone(self), name, function, threads, shared_bytes })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: every kernel has a reference to the module, so nobody uses it any more.
            unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// A kernel that can be launched.
#[derive(Debug)]
pub(crate) struct Kernel {
    _module: Arc<Module>,
    name: &'static str,
    function: sys::CUfunction,
    threads: u32,
    pub shared_bytes: u32,
}

// SAFETY: as of `Module`.
unsafe impl Send for Kernel {}
// SAFETY: as of `Module`.
unsafe impl Sync for Kernel {}
