//! Where operands of a launch lie: any address and strides, one device, one stream, many threads.

use crate::device::{device, two_devices};
use gateloop_scan::cuda::{
    Array, Cuda, CudaError, DeviceVec, Dims, Dtype, Operation, RawWorkspace, ScanArgs, Stream,
};
use gateloop_scan::{Algorithm, Scan, ScanShape, Tolerance};

const UNTOUCHED: f32 = -12345.0;

fn wave(len: usize, offset: f32, size: f32) -> Vec<f32> {
    (0..len).map(|i| offset + size * (1.7 * i as f32).sin()).collect()
}

/// A `[B, T, C]` array in a larger one: `first` elements before it, rows `row` and entries `batch` apart.
struct Layout {
    first: usize,
    batch: usize,
    row: usize,
}

impl Layout {
    fn index(&self, shape: ScanShape) -> impl Iterator<Item = usize> {
        let (first, batch, row) = (self.first, self.batch, self.row);
        (0..shape.len()).map(move |i| {
            let (rest, c) = (i / shape.channels, i % shape.channels);
            first + rest / shape.seqlen * batch + rest % shape.seqlen * row + c
        })
    }
    fn array(&self, vec: &DeviceVec<f32>) -> Array {
        Array {
            ptr: vec.ptr() + 4 * self.first as u64,
            batch_stride: self.batch as i64,
            row_stride: self.row as i64,
        }
    }
}

fn check_layout(cuda: &Cuda, shape: ScanShape, layout: &Layout, reversed: bool) {
    let stream = Stream::default();
    let (a, b) = (wave(shape.len(), 0.8, 0.2), wave(shape.len(), 0.0, 1.0));
    let mut problem = Scan::new(shape, &a, &b).unwrap();
    if reversed {
        problem = problem.reversed();
    }
    let want = problem.run(Algorithm::Naive).unwrap();

    let room = layout.first + shape.batch * layout.batch + 8;
    let spread = |data: &[f32]| {
        let mut room = vec![UNTOUCHED; room];
        layout.index(shape).zip(data).for_each(|(at, &value)| room[at] = value);
        DeviceVec::upload(cuda, stream, &room).unwrap()
    };
    let (a, b) = (spread(&a), spread(&b));
    let h = DeviceVec::upload(cuda, stream, &vec![UNTOUCHED; room]).unwrap();
    let bytes = cuda.workspace_bytes(Operation::Scan, Dtype::F32, shape).unwrap();
    let memory = DeviceVec::upload(cuda, stream, &vec![0_u8; bytes]).unwrap();
    let args = ScanArgs {
        dims: Dims { shape, reversed, starts: 0 },
        dtype: Dtype::F32,
        a: layout.array(&a),
        b: layout.array(&b),
        h: layout.array(&h),
        h0: 0,
        h_last: 0,
    };
    // SAFETY: the arrays lie in vectors that outlive the download, the workspace is zeroed.
    unsafe {
        cuda.scan(stream, &RawWorkspace { ptr: memory.ptr(), bytes }, &args).unwrap();
    }
    let mut h = h.download(cuda, stream).unwrap();
    let got: Vec<f32> = layout.index(shape).map(|at| h[at]).collect();
    let magnitude = problem.magnitude().unwrap();
    Tolerance::of::<f32>(shape.seqlen).check(&got, &want, &magnitude).unwrap();
    // Nothing around it was written.
    layout.index(shape).for_each(|at| h[at] = UNTOUCHED);
    assert!(h.iter().all(|&value| value == UNTOUCHED));
}

#[test]
fn arrays_may_lie_anywhere() {
    let Some(cuda) = device() else { return };
    for [batch, seqlen, channels] in
        [[1, 1, 1], [3, 3, 130], [2, 300, 64], [3, 71, 33], [2, 1300, 8]]
    {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        for first in [0, 1, 3, 4] {
            for pad in [0, 1, 4] {
                let row = channels + pad;
                let layout = Layout { first, batch: seqlen * row + pad, row };
                check_layout(&cuda, shape, &layout, false);
                check_layout(&cuda, shape, &layout, true);
            }
        }
    }
}

#[test]
fn operands_of_another_stream_are_refused() {
    let Some(cuda) = device() else { return };
    let other = cuda.context().new_stream().unwrap();
    // SAFETY: the stream is of the device's primary context and lives until the end of the test.
    let stream = unsafe { Stream::from_raw(other.cu_stream()) };
    let shape = ScanShape::new(1, 4, 2).unwrap();
    let here = DeviceVec::upload(&cuda, Stream::default(), &[0.5_f32; 8]).unwrap();
    let there = DeviceVec::upload(&cuda, stream, &[0.5_f32; 8]).unwrap();
    let refused = cuda.run_scan(stream, shape, &here, &there, None, None, false).unwrap_err();
    assert!(matches!(refused, CudaError::Operand { operand: "a", .. }), "{refused}");
    cuda.run_scan(stream, shape, &there, &there, None, None, false).unwrap();
    cuda.synchronize(stream).unwrap();
}

#[test]
fn devices_do_not_mix_and_do_not_disturb_each_other() {
    let Some([first, second]) = two_devices() else { return };
    let shape = ScanShape::new(1, 300, 40).unwrap();
    let stream = Stream::default();
    let (a, b) = (wave(shape.len(), 0.8, 0.2), wave(shape.len(), 0.0, 1.0));
    let want = Scan::new(shape, &a, &b).unwrap().run(Algorithm::Naive).unwrap();
    let magnitude = Scan::new(shape, &a, &b).unwrap().magnitude().unwrap();
    let current = || cudarc::driver::result::ctx::get_current().unwrap();
    for (here, there) in [(&first, &second), (&second, &first)] {
        let up = |cuda: &Cuda, data: &[f32]| DeviceVec::upload(cuda, stream, data).unwrap();
        let (a_here, b_here, b_there) = (up(here, &a), up(here, &b), up(there, &b));
        let refused = here.run_scan(stream, shape, &a_here, &b_there, None, None, false);
        let (actual, expected) = (there.context().ordinal(), here.context().ordinal());
        let Err(CudaError::WrongDevice { operand: "b", actual: found, expected: asked }) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!((found, asked), (actual, expected));

        // Another library's device is the current one before and after a launch.
        let (h, h_last) = (up(here, &a), up(here, &b[..shape.state_len()]));
        let bytes = here.workspace_bytes(Operation::Scan, Dtype::F32, shape).unwrap();
        let memory = DeviceVec::upload(here, stream, &vec![0_u8; bytes]).unwrap();
        there.context().bind_to_thread().unwrap();
        let before = current();
        let args = ScanArgs {
            dims: Dims::new(shape),
            dtype: Dtype::F32,
            a: Array::contiguous(a_here.ptr(), shape),
            b: Array::contiguous(b_here.ptr(), shape),
            h: Array::contiguous(h.ptr(), shape),
            h0: 0,
            h_last: h_last.ptr(),
        };
        let workspace = RawWorkspace { ptr: memory.ptr(), bytes };
        // SAFETY: the arrays lie in vectors that outlive the download, the workspace is zeroed.
        unsafe { here.scan(stream, &workspace, &args).unwrap() };
        assert_eq!(current(), before);
        let got = h.download(here, stream).unwrap();
        Tolerance::of::<f32>(shape.seqlen).check(&got, &want, &magnitude).unwrap();
    }
}

#[test]
fn a_length_that_overflows_is_refused() {
    let Some(cuda) = device() else { return };
    let refused = DeviceVec::<f64>::uninit(&cuda, Stream::default(), 1 << 61).unwrap_err();
    assert!(matches!(refused, CudaError::OutOfMemory { .. }), "{refused}");
}

#[test]
fn threads_may_share_a_stream() {
    let Some(cuda) = device() else { return };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cuda = &cuda;
            scope.spawn(move || {
                // Ever larger problems, so that the stream's workspace is replaced again and again.
                for round in 1..40 {
                    let shape = ScanShape::new(1, 150 * round + thread, 64).unwrap();
                    let (a, b) = (wave(shape.len(), 0.8, 0.2), wave(shape.len(), 0.0, 1.0));
                    let problem = Scan::new(shape, &a, &b).unwrap();
                    let want = problem.run(Algorithm::Naive).unwrap();
                    let stream = Stream::default();
                    let a = DeviceVec::upload(cuda, stream, &a).unwrap();
                    let b = DeviceVec::upload(cuda, stream, &b).unwrap();
                    let (h, _) = cuda.run_scan(stream, shape, &a, &b, None, None, false).unwrap();
                    let magnitude = problem.magnitude().unwrap();
                    let got = h.download(cuda, stream).unwrap();
                    Tolerance::of::<f32>(shape.seqlen).check(&got, &want, &magnitude).unwrap();
                }
            });
        }
    });
}
