//! The scan on 16-bit arrays through the raw layer: the state is f32, only what is written is rounded.

use crate::device::device;
use gateloop_scan::cuda::{
    Array, Cuda, CudaError, DeviceVec, Dims, Dtype, Operation, RawWorkspace, ScanArgs, Stream,
};
use gateloop_scan::{Algorithm, Scan, ScanShape};

/// A 16-bit format, by its fields; the tests' numbers are normal in both.
#[derive(Clone, Copy)]
struct Half {
    dtype: Dtype,
    mantissa: i32,
    bias: i32,
}

const FORMATS: [Half; 2] = [
    Half { dtype: Dtype::Bf16, mantissa: 7, bias: 127 },
    Half { dtype: Dtype::F16, mantissa: 10, bias: 15 },
];

impl Half {
    /// The bits of the nearest number, and zero for what is smaller than every normal one.
    fn encode(self, value: f64) -> u16 {
        let sign = u16::from(value.is_sign_negative()) << 15;
        let mut exponent = value.abs().log2().floor() as i32;
        if value == 0.0 || exponent <= -self.bias {
            return sign;
        }
        let one = 1_i32 << self.mantissa;
        let scaled = value.abs() * f64::from(self.mantissa - exponent).exp2();
        let mut digits = scaled.round_ties_even() as i32;
        if digits == 2 * one {
            (digits, exponent) = (one, exponent + 1);
        }
        sign | (((exponent + self.bias) << self.mantissa) + digits - one) as u16
    }

    fn decode(self, bits: u16) -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let (one, rest) = (1_i32 << self.mantissa, i32::from(bits & 0x7fff));
        if rest < one {
            return sign * f64::from(rest) * f64::from(1 - self.bias - self.mantissa).exp2();
        }
        let exponent = (rest >> self.mantissa) - self.bias - self.mantissa;
        sign * f64::from(one + rest % one) * f64::from(exponent).exp2()
    }

    /// Half the distance between neighbours, relative to them.
    fn rounding(self) -> f64 {
        f64::from(-self.mantissa - 1).exp2()
    }

    fn numbers(self, len: usize, offset: f64, size: f64) -> Vec<u16> {
        (0..len).map(|i| self.encode(offset + size * (1.7 * i as f64).sin())).collect()
    }
}

fn bytes_of(bits: &[u16]) -> Vec<u8> {
    bits.iter().flat_map(|bits| bits.to_ne_bytes()).collect()
}

fn check(cuda: &Cuda, half: Half, dims: [usize; 3], reversed: bool) {
    let shape = ScanShape::new(dims[0], dims[1], dims[2]).unwrap();
    let (a, b) = (half.numbers(shape.len(), 0.8, 0.2), half.numbers(shape.len(), 0.5, 1.0));
    let wide = |bits: &[u16]| -> Vec<f64> { bits.iter().map(|&b| half.decode(b)).collect() };
    let (wide_a, wide_b) = (wide(&a), wide(&b));
    let mut problem = Scan::new(shape, &wide_a, &wide_b).unwrap();
    if reversed {
        problem = problem.reversed();
    }
    let want = problem.run(Algorithm::Naive).unwrap();
    let sizes = problem.magnitude().unwrap();

    let stream = Stream::default();
    let up = |bits: &[u16]| DeviceVec::upload(cuda, stream, &bytes_of(bits)).unwrap();
    let (a, b) = (up(&a), up(&b));
    // NaNs, so that an unwritten output shows.
    let h = DeviceVec::upload(cuda, stream, &vec![0xff_u8; 2 * shape.len()]).unwrap();
    let last = DeviceVec::upload(cuda, stream, &vec![f32::NAN; shape.state_len()]).unwrap();
    let bytes = cuda.workspace_bytes(Operation::Scan, half.dtype, shape).unwrap();
    let memory = DeviceVec::upload(cuda, stream, &vec![0_u8; bytes]).unwrap();
    let workspace = RawWorkspace { ptr: memory.ptr(), bytes };
    let args = ScanArgs {
        dims: Dims { shape, reversed, starts: 0 },
        dtype: half.dtype,
        a: Array::contiguous(a.ptr(), shape),
        b: Array::contiguous(b.ptr(), shape),
        h: Array::contiguous(h.ptr(), shape),
        h0: 0,
        h_last: last.ptr(),
    };
    // SAFETY: the arrays lie in vectors that outlive the downloads, the workspace is zeroed.
    unsafe { cuda.scan(stream, &workspace, &args).unwrap() };

    let name = format!("{} {dims:?} reversed {reversed}", half.dtype.name());
    let got: Vec<f64> = h
        .download(cuda, stream)
        .unwrap()
        .chunks_exact(2)
        .map(|pair| half.decode(u16::from_ne_bytes([pair[0], pair[1]])))
        .collect();
    // The state keeps f32, so that nothing but the last rounding is of the format.
    for (i, ((got, want), size)) in got.iter().zip(&want).zip(&sizes).enumerate() {
        let allowed = 1.01 * half.rounding() * want.abs() + 1e-5 * size + 1e-7;
        assert!((got - want).abs() <= allowed, "h[{i}] of {name}: {got} for {want}");
    }
    let want_last = problem.last_state(&want).unwrap();
    let size_last = problem.last_state(&sizes).unwrap();
    let got_last = last.download(cuda, stream).unwrap();
    for ((got, want), size) in got_last.iter().zip(&want_last).zip(&size_last) {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= 1e-5 * size, "h_last of {name}: {got} for {want}");
    }
}

#[test]
fn sixteen_bits_are_encoded_as_ieee_says() {
    for (half, one, near) in [
        (FORMATS[0], 0x3f80, 1.0 + 2.0_f64.powi(-7)),
        (FORMATS[1], 0x3c00, 1.0 + 2.0_f64.powi(-10)),
    ] {
        assert_eq!((half.encode(1.0), half.encode(-2.0) >> 15, half.encode(0.0)), (one, 1, 0));
        assert_eq!((half.encode(near), half.decode(one + 1)), (one + 1, near));
        // A number between two neighbours goes to the nearest, and a carry into the exponent.
        assert_eq!(half.decode(half.encode(2.0 - 1e-9)), 2.0);
        for bits in half.numbers(1000, 0.5, 1.0) {
            assert_eq!(half.encode(half.decode(bits)), bits);
        }
    }
}

#[test]
fn the_state_of_a_16_bit_scan_is_f32() {
    let Some(cuda) = device() else { return };
    for half in FORMATS {
        // Rows of 16 bytes and others, one tile and many.
        for dims in [
            [1, 1, 1],
            [3, 4, 200],
            [2, 3, 33],
            [2, 61, 128],
            [1, 300, 33],
            [3, 1025, 8],
            [1, 4097, 136],
        ] {
            check(&cuda, half, dims, false);
            check(&cuda, half, dims, true);
        }
    }
}

#[test]
fn a_state_off_its_alignment_is_refused_and_the_device_goes_on() {
    let Some(cuda) = device() else { return };
    let stream = Stream::default();
    let shape = ScanShape::new(1, 4, 2).unwrap();
    let data = DeviceVec::upload(&cuda, stream, &[0.5_f32; 16]).unwrap();
    let bytes = cuda.workspace_bytes(Operation::Scan, Dtype::F32, shape).unwrap();
    let memory = DeviceVec::upload(&cuda, stream, &vec![0_u8; bytes]).unwrap();
    let array = Array::contiguous(data.ptr(), shape);
    let args = ScanArgs {
        dims: Dims::new(shape),
        dtype: Dtype::F32,
        a: array,
        b: array,
        h: Array::contiguous(data.ptr() + 32, shape),
        h0: data.ptr() + 2,
        h_last: 0,
    };
    let workspace = RawWorkspace { ptr: memory.ptr(), bytes };
    // SAFETY: every address lies in vectors that outlive the launch, which is refused.
    let refused = unsafe { cuda.scan(stream, &workspace, &args) }.unwrap_err();
    assert!(matches!(refused, CudaError::Operand { operand: "h0", .. }), "{refused}");
    let args = ScanArgs { h0: 0, ..args };
    // SAFETY: as above; `h` lies behind `a` and `b`, which are the same.
    unsafe { cuda.scan(stream, &workspace, &args) }.unwrap();
    cuda.synchronize(stream).unwrap();
}
