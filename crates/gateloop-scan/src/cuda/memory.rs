//! Device memory with an owner.

use super::args::Stream;
use super::error::{Context, CudaError};
use super::{Cuda, Dtype};
use crate::ScanElement;
use cudarc::driver::{CudaContext, result, sys};
use num_complex::Complex;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of device memory, allocated and freed in the order of one stream.
#[derive(Debug)]
pub(super) struct Buffer {
    ptr: u64,
    bytes: usize,
    stream: Stream,
    context: Arc<CudaContext>,
}

impl Buffer {
    /// Memory with arbitrary content.
    pub(super) fn new(
        context: &Arc<CudaContext>,
        stream: Stream,
        bytes: usize,
    ) -> Result<Self, CudaError> {
        context.bind_to_thread().to("use the device in this thread")?;
        // SAFETY: the context is current. A byte more than nothing, since the driver refuses zero.
        let allocated = unsafe {
            if context.has_async_alloc() {
                result::malloc_async(stream.raw(), bytes.max(1))
            } else {
                result::malloc_sync(bytes.max(1))
            }
        };
        match allocated {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(CudaError::OutOfMemory { bytes })
            }
            other => Ok(Self {
                ptr: other.to("allocate memory")?,
                bytes,
                stream,
                context: Arc::clone(context),
            }),
        }
    }

    /// Memory with zeros, in stream order.
    pub(super) fn zeroed(
        context: &Arc<CudaContext>,
        stream: Stream,
        bytes: usize,
    ) -> Result<Self, CudaError> {
        let buffer = Self::new(context, stream, bytes)?;
        // SAFETY: the buffer is this large.
        unsafe { result::memset_d8_async(buffer.ptr, 0, bytes, stream.raw()) }
            .to("clear memory")?;
        Ok(buffer)
    }

    pub(super) const fn ptr(&self) -> u64 {
        self.ptr
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // SAFETY: allocated by `new` in the same way, and nobody has the address any more. There is
        // nobody to tell of a failure.
        let _ = unsafe {
            if self.context.has_async_alloc() {
                result::free_async(self.ptr, self.stream.raw())
            } else {
                result::free_sync(self.ptr)
            }
        };
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for num_complex::Complex<f32> {}
    impl Sealed for num_complex::Complex<f64> {}
}

/// What a [`DeviceVec`] can hold: the elements of a scan, and bytes. Sealed.
pub trait DeviceElement: Copy + Default + Send + Sync + 'static + sealed::Sealed {}
impl DeviceElement for u8 {}
impl DeviceElement for f32 {}
impl DeviceElement for f64 {}
impl DeviceElement for Complex<f32> {}
impl DeviceElement for Complex<f64> {}

/// The kernels' name for an element of a scan.
pub(super) fn dtype_of<E: ScanElement>() -> Dtype {
    match E::NAME {
        "f32" => Dtype::F32,
        "f64" => Dtype::F64,
        "complex64" => Dtype::C64,
        _ => Dtype::C128,
    }
}

/// A vector in device memory.
#[derive(Debug)]
pub struct DeviceVec<E> {
    buffer: Buffer,
    len: usize,
    element: PhantomData<E>,
}

impl<E: DeviceElement> DeviceVec<E> {
    /// `len` elements with arbitrary content, to be written by a kernel.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn uninit(cuda: &Cuda, stream: Stream, len: usize) -> Result<Self, CudaError> {
        // A length that wrapped around would pass for the size of a small buffer.
        let bytes =
            len.checked_mul(size_of::<E>()).ok_or(CudaError::OutOfMemory { bytes: usize::MAX })?;
        let buffer = Buffer::new(cuda.context(), stream, bytes)?;
        Ok(Self { buffer, len, element: PhantomData })
    }

    /// A copy of `data` on the device.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn upload(cuda: &Cuda, stream: Stream, data: &[E]) -> Result<Self, CudaError> {
        let vec = Self::uninit(cuda, stream, data.len())?;
        // SAFETY: the buffer holds as many elements; `data` lives until the stream has been waited for.
        unsafe { result::memcpy_htod_async(vec.ptr(), data, stream.raw()) }
            .to("copy to the device")?;
        cuda.synchronize(stream)?;
        Ok(vec)
    }

    /// Refuses a vector of another device, or of another stream: it might be freed while it is in use
    /// there.
    pub(super) fn check_home(
        &self,
        operand: &'static str,
        cuda: &Cuda,
        stream: Stream,
    ) -> Result<(), CudaError> {
        let (actual, expected) = (self.buffer.context.ordinal(), cuda.context().ordinal());
        if actual != expected {
            return Err(CudaError::WrongDevice { operand, actual, expected });
        }
        if self.buffer.stream != stream {
            let problem = "allocated in another stream: upload it in the one that works with it";
            return Err(CudaError::Operand { operand, problem: problem.to_owned() });
        }
        Ok(())
    }

    /// Sets every byte, in stream order: tests fill outputs with what no kernel writes.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn fill_bytes(&mut self, cuda: &Cuda, stream: Stream, byte: u8) -> Result<(), CudaError> {
        self.check_home("self", cuda, stream)?;
        cuda.bind()?;
        // SAFETY: the buffer is this large.
        unsafe { result::memset_d8_async(self.ptr(), byte, self.buffer.bytes(), stream.raw()) }
            .to("fill memory")
    }

    /// A copy on the host, after the stream's work.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also if a kernel before failed; [`CudaError::WrongDevice`], and
    /// [`CudaError::Operand`] for another stream than that of the allocation.
    pub fn download(&self, cuda: &Cuda, stream: Stream) -> Result<Vec<E>, CudaError> {
        self.download_range(cuda, stream, 0..self.len)
    }

    /// A copy of some elements.
    ///
    /// # Errors
    /// [`CudaError::Operand`] for a range beyond the end; as [`DeviceVec::download`].
    pub fn download_range(
        &self,
        cuda: &Cuda,
        stream: Stream,
        range: Range<usize>,
    ) -> Result<Vec<E>, CudaError> {
        if range.start > range.end || range.end > self.len {
            let problem = format!("{range:?} does not lie within {} elements", self.len);
            return Err(CudaError::Operand { operand: "range", problem });
        }
        self.check_home("self", cuda, stream)?;
        cuda.bind()?;
        let mut data = vec![E::default(); range.len()];
        let from = self.ptr() + (range.start * size_of::<E>()) as u64;
        // SAFETY: both sides hold the range's elements, for which every bit pattern is valid.
        unsafe { result::memcpy_dtoh_async(&mut data, from, stream.raw()) }
            .to("copy from the device")?;
        cuda.synchronize(stream)?;
        Ok(data)
    }

    /// Device address of the first element.
    pub const fn ptr(&self) -> u64 {
        self.buffer.ptr()
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_their_kernels_names() {
        assert_eq!(dtype_of::<f32>(), Dtype::F32);
        assert_eq!(dtype_of::<f64>(), Dtype::F64);
        assert_eq!(dtype_of::<Complex<f32>>(), Dtype::C64);
        assert_eq!(dtype_of::<Complex<f64>>(), Dtype::C128);
    }
}
