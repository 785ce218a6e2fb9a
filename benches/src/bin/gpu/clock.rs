//! Time on the device, and the rate at which it copies.

use cudarc::driver::{result, sys};
use gateloop_scan::cuda::{Cuda, CudaError, DeviceVec, Stream};
use std::sync::Arc;

/// Two events around what is timed, on the default stream.
pub(crate) struct Clock {
    cuda: Arc<Cuda>,
    start: sys::CUevent,
    end: sys::CUevent,
}

const REPEATS: usize = 30;

impl Clock {
    pub(crate) fn new(cuda: &Arc<Cuda>) -> Result<Self, CudaError> {
        let event = || {
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|error| driver("create an event", error))
        };
        cuda.synchronize(Stream::default())?;
        Ok(Self { cuda: Arc::clone(cuda), start: event()?, end: event()? })
    }

    /// Milliseconds of a launch, the median of many after a few that do not count.
    pub(crate) fn median(
        &self,
        launch: &dyn Fn() -> Result<(), CudaError>,
    ) -> Result<f64, CudaError> {
        for _ in 0..3 {
            launch()?;
        }
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            record(self.start)?;
            launch()?;
            record(self.end)?;
            // SAFETY: both events are alive and recorded.
            let ms = unsafe {
                result::event::synchronize(self.end)
                    .and_then(|()| result::event::elapsed(self.start, self.end))
            };
            times.push(f64::from(ms.map_err(|error| driver("read an event", error))?));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[REPEATS / 2])
    }

    /// GB/s of a copy within the device, bytes read and bytes written both counted.
    pub(crate) fn copy_rate(&self, bytes: usize) -> Result<f64, CudaError> {
        let stream = Stream::default();
        let mut from = DeviceVec::<u8>::uninit(&self.cuda, stream, bytes)?;
        from.fill_bytes(&self.cuda, stream, 1)?;
        let to = DeviceVec::<u8>::uninit(&self.cuda, stream, bytes)?;
        let ms = self.median(&|| {
            // SAFETY: both vectors hold as many bytes.
            unsafe { result::memcpy_dtod_async(to.ptr(), from.ptr(), bytes, std::ptr::null_mut()) }
                .map_err(|error| driver("copy", error))
        })?;
        Ok(2.0 * bytes as f64 / ms / 1e6)
    }
}

fn record(event: sys::CUevent) -> Result<(), CudaError> {
    // SAFETY: the clock's events are alive; null is the default stream.
    unsafe { result::event::record(event, std::ptr::null_mut()) }
        .map_err(|error| driver("record an event", error))
}

fn driver(action: &'static str, error: result::DriverError) -> CudaError {
    CudaError::Driver { action, code: error.0 }
}
