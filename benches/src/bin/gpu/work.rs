//! One operation on one shape: its arrays, its launch, its check.

use crate::oracle::{self, C};
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{
    Array, Cuda, CudaError, DeviceVec, Dims, Dtype, GateLoopAdjointArgs, GateLoopArgs, Operation,
    RawWorkspace, ScanAdjointArgs, ScanArgs, Stream,
};
use gateloop_scan::gate_loop::GateMode;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) struct Work<'a> {
    cuda: &'a Cuda,
    operation: Operation,
    dtype: Dtype,
    shape: ScanShape,
    /// Inputs and outputs, in the order of the operation's arguments.
    arrays: Vec<DeviceVec<u8>>,
    checkpoints: DeviceVec<u8>,
    workspace: DeviceVec<u8>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        cuda: &'a Cuda,
        operation: Operation,
        dtype: Dtype,
        shape: ScanShape,
    ) -> Result<Self, CudaError> {
        let stream = Stream::default();
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut arrays = Vec::new();
        for role in roles(operation) {
            let parts = role.parts(operation);
            let count = shape.len() * parts;
            let vec = match role {
                Role::Output => DeviceVec::uninit(cuda, stream, count * dtype.bytes())?,
                Role::Decay => upload(cuda, dtype, count, || decay(&mut random, dtype))?,
                Role::Gate => upload(cuda, dtype, count, || vec![random.random_range(-1.0..4.0)])?,
                Role::Input => {
                    let reals = if is_complex(dtype) { 2 } else { 1 };
                    upload(cuda, dtype, count, || {
                        (0..reals).map(|_| random.random_range(-1.0..1.0)).collect()
                    })?
                }
            };
            arrays.push(vec);
        }
        let forward = match operation {
            Operation::GateLoopAdjoint => Operation::GateLoop,
            Operation::SimpleGateLoopAdjoint => Operation::SimpleGateLoop,
            other => other,
        };
        let len = cuda.checkpoint_len(operation, dtype).unwrap_or(usize::MAX);
        let states = shape.state_len() * shape.seqlen.div_ceil(len);
        let checkpoints = DeviceVec::uninit(cuda, stream, states * operation.state(dtype).bytes())?;
        let bytes = cuda
            .workspace_bytes(operation, dtype, shape)?
            .max(cuda.workspace_bytes(forward, dtype, shape)?);
        let mut workspace = DeviceVec::uninit(cuda, stream, bytes)?;
        workspace.fill_bytes(cuda, stream, 0)?;
        let work = Self { cuda, operation, dtype, shape, arrays, checkpoints, workspace };
        if forward != operation {
            // The adjoint goes on from what the forward pass left; its output array serves as y.
            work.launch_gates(forward, &work.arrays[5])?;
        }
        Ok(work)
    }

    /// Bytes that must move: each input read once, each output written once.
    pub(crate) fn bytes(&self) -> usize {
        self.arrays.iter().map(DeviceVec::len).sum::<usize>() - self.unused()
    }

    /// Of the arrays that the simple operator does not have.
    fn unused(&self) -> usize {
        match self.operation {
            Operation::SimpleGateLoop => self.arrays[2].len(),
            Operation::SimpleGateLoopAdjoint => self.arrays[2].len() + self.arrays[7].len(),
            _ => 0,
        }
    }

    fn array(&self, i: usize) -> Array {
        Array::contiguous(self.arrays[i].ptr(), self.shape)
    }

    fn raw_workspace(&self) -> RawWorkspace {
        RawWorkspace { ptr: self.workspace.ptr(), bytes: self.workspace.len() }
    }

    pub(crate) fn launch(&self) -> Result<(), CudaError> {
        let (dims, dtype, stream) = (Dims::new(self.shape), self.dtype, Stream::default());
        let workspace = self.raw_workspace();
        match self.operation {
            Operation::Scan => {
                let (a, b, h) = (self.array(0), self.array(1), self.array(2));
                let args = ScanArgs { dims, dtype, a, b, h, h0: 0, h_last: 0 };
                // SAFETY: the arrays have the shape's size.
                unsafe { self.cuda.scan(stream, &workspace, &args) }
            }
            Operation::ScanAdjoint => {
                let args = ScanAdjointArgs {
                    dims,
                    dtype,
                    a: self.array(0),
                    h: self.array(1),
                    dh: self.array(2),
                    da: self.array(3),
                    db: self.array(4),
                    h0: 0,
                    dh_last: 0,
                    dh0: 0,
                };
                // SAFETY: the arrays have the shape's size.
                unsafe { self.cuda.scan_adjoint(stream, &workspace, &args) }
            }
            Operation::GateLoop | Operation::SimpleGateLoop => {
                self.launch_gates(self.operation, &self.arrays[4])
            }
            _ => {
                let args = GateLoopAdjointArgs {
                    dims,
                    dtype,
                    q: self.array(0),
                    k: self.array(1),
                    v: self.array(2),
                    z: self.array(3),
                    dy: self.array(4),
                    dq: self.array(5),
                    dk: self.array(6),
                    dv: self.array(7),
                    dz: self.array(8),
                    checkpoints: self.checkpoints.ptr(),
                    has_h0: false,
                    dh_last: 0,
                    dh0: 0,
                    mode: GateMode::Complex,
                };
                // SAFETY: the arrays have the shape's size.
                unsafe { self.cuda.gate_loop_adjoint(self.operation, stream, &workspace, &args) }
            }
        }
    }

    fn launch_gates(&self, operation: Operation, y: &DeviceVec<u8>) -> Result<(), CudaError> {
        let args = GateLoopArgs {
            dims: Dims::new(self.shape),
            dtype: self.dtype,
            q: self.array(0),
            k: self.array(1),
            v: self.array(2),
            z: self.array(3),
            y: Array::contiguous(y.ptr(), self.shape),
            h0: 0,
            h_last: 0,
            checkpoints: self.checkpoints.ptr(),
            mode: GateMode::Complex,
        };
        // SAFETY: the arrays have the shape's size.
        unsafe { self.cuda.gate_loop(operation, Stream::default(), &self.raw_workspace(), &args) }
    }

    /// The relative error of one output on the first and the last channel.
    pub(crate) fn check(&self) -> Result<f64, CudaError> {
        self.launch()?;
        let mut worst = 0.0_f64;
        for channel in [0, self.shape.channels - 1] {
            let column = |i: usize, parts: usize| self.column(i, channel, parts);
            let complex =
                matches!(self.operation, Operation::GateLoop | Operation::GateLoopAdjoint);
            let gates = if complex { 2 } else { 1 };
            let (got, want) = match self.operation {
                Operation::Scan => (column(2, 1)?, oracle::scan(&column(0, 1)?, &column(1, 1)?)),
                Operation::ScanAdjoint => {
                    (column(4, 1)?, oracle::adjoint(&column(0, 1)?, &column(2, 1)?))
                }
                _ => {
                    let (q, k, z) = (column(0, 1)?, column(1, 1)?, column(3, gates)?);
                    let a: Vec<C> = z.iter().map(|&z| oracle::decay(z, complex)).collect();
                    let v = if complex { column(2, 1)? } else { vec![C::from(1.0); k.len()] };
                    let kv: Vec<C> = k.iter().zip(&v).map(|(k, v)| k * v).collect();
                    let h = oracle::scan(&a, &kv);
                    if matches!(self.operation, Operation::GateLoop | Operation::SimpleGateLoop) {
                        let y = q.iter().zip(&h).map(|(q, h)| C::from(q.re * h.re)).collect();
                        (column(4, 1)?, y)
                    } else {
                        let dh: Vec<C> =
                            q.iter().zip(&column(4, 1)?).map(|(q, dy)| q * dy).collect();
                        let g = oracle::adjoint(&a, &dh);
                        let dk = g.iter().zip(&v).map(|(g, v)| C::from(g.re * v.re)).collect();
                        (column(6, 1)?, dk)
                    }
                }
            };
            worst = worst.max(oracle::distance(&got, &want));
        }
        Ok(worst)
    }

    /// One channel of the last batch entry.
    fn column(&self, i: usize, channel: usize, parts: usize) -> Result<Vec<C>, CudaError> {
        let parts = if is_complex(self.dtype) { 2 } else { parts };
        let real = match self.dtype {
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::F32 | Dtype::C64 => 4,
            Dtype::F64 | Dtype::C128 => 8,
        };
        let array = &self.arrays[i];
        let entry = array.len() / self.shape.batch;
        let bytes =
            array.download_range(self.cuda, Stream::default(), array.len() - entry..array.len())?;
        let number = |index: usize| -> f64 {
            let at = &bytes[index * real..(index + 1) * real];
            match *at {
                [a, b] => f64::from(f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16)),
                [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => f64::NAN,
            }
        };
        Ok((0..self.shape.seqlen)
            .map(|t| {
                let index = (t * self.shape.channels + channel) * parts;
                C::new(number(index), if parts == 2 { number(index + 1) } else { 0.0 })
            })
            .collect())
    }
}

#[derive(Clone, Copy)]
enum Role {
    Decay,
    Input,
    Gate,
    Output,
}

impl Role {
    fn parts(self, operation: Operation) -> usize {
        let complex = matches!(operation, Operation::GateLoop | Operation::GateLoopAdjoint);
        if matches!(self, Self::Gate) && complex { 2 } else { 1 }
    }
}

fn roles(operation: Operation) -> Vec<Role> {
    use Role::{Decay, Gate, Input, Output};
    match operation {
        Operation::Scan => vec![Decay, Input, Output],
        Operation::ScanAdjoint => vec![Decay, Input, Input, Output, Output],
        Operation::GateLoop | Operation::SimpleGateLoop => vec![Input, Input, Input, Gate, Output],
        // The last gradient has the shape of the gates; it is allotted as such and written.
        _ => vec![Input, Input, Input, Gate, Input, Output, Output, Output, Gate],
    }
}

fn is_complex(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::C64 | Dtype::C128)
}

/// Moduli near 1, any phase.
fn decay(random: &mut ChaCha8Rng, dtype: Dtype) -> Vec<f64> {
    let modulus = 1.0 - 0.1 * random.random_range(0.0..1.0_f64).powi(2);
    let number = C::from_polar(modulus, random.random_range(-3.0..3.0));
    if is_complex(dtype) { vec![number.re, number.im] } else { vec![modulus] }
}

/// Elements that are drawn; longer arrays repeat them.
const DRAWN: usize = 1_000_003;

/// `count` elements in the type's format.
fn upload(
    cuda: &Cuda,
    dtype: Dtype,
    count: usize,
    mut draw: impl FnMut() -> Vec<f64>,
) -> Result<DeviceVec<u8>, CudaError> {
    let mut bytes = Vec::with_capacity(count * dtype.bytes());
    for _ in 0..count.min(DRAWN) {
        for real in draw() {
            match dtype {
                // Cut off, not rounded: what is on the device is what the check reads back.
                Dtype::Bf16 | Dtype::F16 => {
                    bytes.extend((((real as f32).to_bits() >> 16) as u16).to_le_bytes());
                }
                Dtype::F32 | Dtype::C64 => bytes.extend((real as f32).to_le_bytes()),
                Dtype::F64 | Dtype::C128 => bytes.extend(real.to_le_bytes()),
            }
        }
    }
    while bytes.len() < count * dtype.bytes() {
        let more = (count * dtype.bytes() - bytes.len()).min(bytes.len());
        bytes.extend_from_within(..more);
    }
    DeviceVec::upload(cuda, Stream::default(), &bytes)
}
