//! What the tests on a device put into its memory.

use crate::device::is_stand_in;
use gateloop_scan::cuda::{Cuda, DeviceElement, DeviceVec, Stream};

/// Numbers that look random, from a seed.
pub(crate) struct Random(pub(crate) u64);
impl Random {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }
}

/// Leaves NaNs in the memory that the next allocations get, so that an unwritten output shows.
pub(crate) fn poison(cuda: &Cuda) {
    if is_stand_in(cuda) {
        return;
    }
    let mut vec = DeviceVec::<u8>::uninit(cuda, Stream::default(), 64 << 20).unwrap();
    vec.fill_bytes(cuda, Stream::default(), 0xff).unwrap();
}

pub(crate) fn up<E: DeviceElement>(cuda: &Cuda, data: &[E]) -> DeviceVec<E> {
    DeviceVec::upload(cuda, Stream::default(), data).unwrap()
}

pub(crate) fn down<E: DeviceElement>(cuda: &Cuda, data: &DeviceVec<E>) -> Vec<E> {
    data.download(cuda, Stream::default()).unwrap()
}
