//! A device: its context, its kernels, its workspaces.

use super::args::{RawWorkspace, Stream};
use super::error::{Context, CudaError};
use super::memory::Buffer;
use super::params::WorkspaceParams;
use super::plan::{self, DeviceLimits, Plan};
use super::ptx::ptx;
use super::{Dtype, Operation};
use crate::ScanShape;
use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, CUfunction, CUfunction_attribute};
use cudarc::driver::{CudaContext, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// The first bytes of a workspace: tickets and epoch.
pub(super) const CONTROL_BYTES: usize = 256;

/// The newest CUDA that the PTX asks of a driver.
pub(super) const NEEDED: (i32, i32) = (12, 4);

/// The oldest device that the PTX is for, as (major, minor).
pub(super) const NEEDED_CAPABILITY: (usize, usize) = (8, 0);

/// A CUDA device with its kernels, loaded when first used.
#[derive(Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    name: String,
    limits: DeviceLimits,
    functions: Mutex<HashMap<String, Function>>,
    workspaces: Mutex<HashMap<Stream, Buffer>>,
}

/// A driver's handle; kernels stay loaded as long as the program runs.
#[derive(Debug, Clone, Copy)]
struct Function(CUfunction);
// SAFETY: handles of the driver may be used from every thread that has the context current.
unsafe impl Send for Function {}

static DEVICES: LazyLock<Mutex<HashMap<usize, Arc<Cuda>>>> = LazyLock::new(Mutex::default);

/// A lock that a panic elsewhere has not made useless: every critical section here leaves its map whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// Whether this machine has a driver and a device.
    pub fn is_available() -> bool {
        Self::count().is_ok_and(|count| count > 0)
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`] on a machine without one.
    pub fn count() -> Result<usize, CudaError> {
        // SAFETY: opens libcuda and closes it again. Asked first, since every other call of cudarc
        // panics when the library is absent.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        match result::init() {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(0),
            other => other.to("start")?,
        }
        Ok(result::device::get_count().to("count its devices")? as usize)
    }

    /// The device with this number, in its primary context; the same object for every caller.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::DriverTooOld`],
    /// [`CudaError::DeviceTooOld`].
    pub fn device(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        if let Some(known) = lock(&DEVICES).get(&ordinal) {
            return Ok(Arc::clone(known));
        }
        let count = Self::count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let mut version = 0;
        // SAFETY: the driver writes one integer through a pointer to one.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().to("tell its version")?;
        let found = (version / 1000, version % 1000 / 10);
        if found < NEEDED {
            return Err(CudaError::DriverTooOld { found });
        }
        let _restored = Bound::remember()?;
        let context = CudaContext::new(ordinal).to("open the device")?;
        let attribute = |attribute| -> Result<usize, CudaError> {
            Ok(context.attribute(attribute).to("describe the device")? as usize)
        };
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < NEEDED_CAPABILITY {
            return Err(CudaError::DeviceTooOld { found: capability });
        }
        let limits = DeviceLimits {
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_block: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            shared_per_multiprocessor: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
            threads_per_multiprocessor: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
            )?,
        };
        let name = context.name().to("name the device")?;
        let device = Arc::new(Self {
            context,
            name,
            limits,
            functions: Mutex::default(),
            workspaces: Mutex::default(),
        });
        // Another thread may have been faster; its device is the one that everybody gets.
        Ok(Arc::clone(lock(&DEVICES).entry(ordinal).or_insert(device)))
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's limits.
    pub const fn limits(&self) -> DeviceLimits {
        self.limits
    }

    /// The device's primary context.
    pub const fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Bytes of workspace that a launch needs.
    ///
    /// # Errors
    /// As the launch itself.
    pub fn workspace_bytes(
        &self,
        operation: Operation,
        dtype: Dtype,
        shape: ScanShape,
    ) -> Result<usize, CudaError> {
        let plan = Plan::new(operation, dtype, shape, false, &self.limits)?;
        Ok(CONTROL_BYTES + 16 * plan.words as usize)
    }

    /// Positions between two checkpoints of a fused operator on this device: the tile of its adjoint.
    ///
    /// # Errors
    /// [`CudaError::Dtype`] if there is no such kernel, [`CudaError::Operand`] for a scan, which has no
    /// checkpoints, [`CudaError::SharedMemory`] for a device on which no kernel fits.
    pub fn checkpoint_len(&self, operation: Operation, dtype: Dtype) -> Result<usize, CudaError> {
        plan::checkpoint_len(operation, dtype, &self.limits)
    }

    /// Waits until everything in a stream is done.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if a kernel before failed.
    pub fn synchronize(&self, stream: Stream) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the caller's stream belongs to this device's context.
        unsafe { result::stream::synchronize(stream.raw()) }.to("finish the stream's work")
    }

    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().to("use the device in this thread")
    }

    /// Launches with the cached workspace of a stream, at least this large.
    ///
    /// No other thread gets at the stream's workspace until the launch is in the stream: it might
    /// replace it by a larger one, and the launch would come after the old one's end.
    pub(super) fn with_workspace(
        &self,
        stream: Stream,
        bytes: usize,
        launch: impl FnOnce(&RawWorkspace) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let mut workspaces = lock(&self.workspaces);
        let known = workspaces.get(&stream).filter(|known| known.bytes() >= bytes);
        if let Some(known) = known {
            return launch(&RawWorkspace { ptr: known.ptr(), bytes: known.bytes() });
        }
        // Grown in stream order: launches before may still work with the old one.
        let fresh = Buffer::zeroed(&self.context, stream, bytes.next_power_of_two())?;
        let raw = RawWorkspace { ptr: fresh.ptr(), bytes: fresh.bytes() };
        workspaces.insert(stream, fresh);
        launch(&raw)
    }

    /// Launches a kernel with its parameters.
    ///
    /// # Safety
    /// `P` is the kernel's parameter structure; its addresses are valid for what the kernel does, and
    /// the workspace is as [`RawWorkspace`] demands.
    pub(super) unsafe fn launch<P>(
        &self,
        plan: &Plan,
        stream: Stream,
        workspace: &RawWorkspace,
        mut params: P,
    ) -> Result<(), CudaError> {
        if !plan.meets {
            // SAFETY: the caller's promise.
            return unsafe {
                self.launch_blocks(&plan.kernel, plan.grid, plan.threads, stream, params)
            };
        }
        let needed = CONTROL_BYTES + 16 * plan.words as usize;
        if workspace.ptr == 0 || !workspace.ptr.is_multiple_of(16) || workspace.bytes < needed {
            let problem = format!(
                "{} bytes at {:#x}, but {needed} zeroed bytes, aligned to 16, are needed",
                workspace.bytes, workspace.ptr
            );
            return Err(CudaError::Operand { operand: "workspace", problem });
        }
        let mut work = WorkspaceParams {
            control: workspace.ptr,
            records: workspace.ptr + CONTROL_BYTES as u64,
            capacity: ((workspace.bytes - CONTROL_BYTES) / 16) as u64,
        };
        let mut arguments: [*mut c_void; 2] = [(&raw mut params).cast(), (&raw mut work).cast()];
        let Plan { kernel, grid, threads, shared_bytes, .. } = plan;
        let launch = Blocks { kernel, grid: *grid, threads: *threads, shared_bytes: *shared_bytes };
        // SAFETY: the kernel takes these two structures by value; the rest is the caller's word.
        unsafe { self.launch_with(launch, stream, &mut arguments) }
    }

    /// Launches a kernel that needs no workspace.
    ///
    /// # Safety
    /// `P` is the kernel's parameter structure; its addresses are valid for what the kernel does.
    pub(super) unsafe fn launch_blocks<P>(
        &self,
        kernel: &str,
        grid: u32,
        threads: u32,
        stream: Stream,
        mut params: P,
    ) -> Result<(), CudaError> {
        let launch = Blocks { kernel, grid, threads, shared_bytes: 0 };
        // SAFETY: the kernel takes this structure by value; the rest is the caller's word.
        unsafe { self.launch_with(launch, stream, &mut [(&raw mut params).cast()]) }
    }

    /// # Safety
    /// The kernel takes these arguments, which point to what it takes by value.
    unsafe fn launch_with(
        &self,
        launch: Blocks<'_>,
        stream: Stream,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        let _restored = Bound::new(self)?;
        let function = self.function(launch.kernel, launch.shared_bytes)?;
        let (grid, threads) = ((launch.grid, 1, 1), (launch.threads, 1, 1));
        let shared = launch.shared_bytes as u32;
        // SAFETY: the caller's promise.
        unsafe { result::launch_kernel(function, grid, threads, shared, stream.raw(), arguments) }
            .to("launch the kernel")
    }

    fn function(&self, kernel: &str, shared_bytes: usize) -> Result<CUfunction, CudaError> {
        let mut functions = lock(&self.functions);
        if let Some(known) = functions.get(kernel) {
            return Ok(known.0);
        }
        let module = load(kernel)?;
        let name = CString::new(kernel).unwrap_or_default();
        // SAFETY: the module is loaded and stays so.
        let function =
            unsafe { result::module::get_function(module, name) }.to("find the kernel")?;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is valid; the size is within the device's limit, by the plan.
        unsafe {
            result::function::set_function_attribute(function, attribute, shared_bytes as i32)
        }
        .to("give the kernel its shared memory")?;
        functions.insert(kernel.to_owned(), Function(function));
        Ok(function)
    }
}

/// How many blocks of a kernel run, with how many threads and how much dynamic shared memory each.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    kernel: &'a str,
    grid: u32,
    threads: u32,
    shared_bytes: usize,
}

/// Compiles a kernel for the current device, or finds it in the driver's cache.
fn load(kernel: &str) -> Result<sys::CUmodule, CudaError> {
    let missing = CudaError::Driver {
        action: "find the kernel among those of this program",
        code: sys::CUresult::CUDA_ERROR_NOT_FOUND,
    };
    let ptx = ptx(kernel).and_then(|text| CString::new(text).ok()).ok_or(missing)?;
    // SAFETY: the image is a string that ends with a zero byte; the driver copies what it needs.
    unsafe { result::module::load_data(ptx.as_ptr().cast()) }
        .to("load the kernel (a driver older than 550 cannot)")
}

/// The device's context is current as long as this lives; then the one before is again: a caller's
/// other library, which may work with another device, does not notice.
struct Bound(sys::CUcontext);

impl Bound {
    fn new(device: &Cuda) -> Result<Self, CudaError> {
        let restored = Self::remember()?;
        device.bind()?;
        Ok(restored)
    }

    /// Of whatever context is made current next.
    fn remember() -> Result<Self, CudaError> {
        let before = result::ctx::get_current().to("tell the current context")?;
        Ok(Self(before.unwrap_or(std::ptr::null_mut())))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the context was current a moment ago. There is nobody to tell of a failure.
            let _ = unsafe { result::ctx::set_current(self.0) };
        }
    }
}
