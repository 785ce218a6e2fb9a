//! Which kernels there are.

/// The type of the elements in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit real.
    F32,
    /// 64-bit real.
    F64,
    /// Complex, 32 bits a part.
    C64,
    /// Complex, 64 bits a part.
    C128,
    /// bfloat16, with a state of `F32`.
    Bf16,
    /// IEEE half, with a state of `F32`.
    F16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::F32, Self::F64, Self::C64, Self::C128, Self::Bf16, Self::F16];

    /// The type's name, as in the kernels' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::C64 => "c64",
            Self::C128 => "c128",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::C64 => 8,
            Self::C128 => 16,
        }
    }

    /// Alignment of an element in the kernels; a complex number is aligned to its size.
    pub(crate) const fn alignment(self) -> usize {
        self.bytes()
    }

    const fn complex(self) -> Self {
        match self {
            Self::F64 | Self::C128 => Self::C128,
            _ => Self::C64,
        }
    }

    const fn wide(self) -> Self {
        match self {
            Self::Bf16 | Self::F16 => Self::F32,
            other => other,
        }
    }

    /// Words of a record of `count` numbers: `Record::WORDS` of kernels/record.cuh.
    pub(crate) const fn record_words(self, count: usize) -> usize {
        match self {
            Self::F64 => count,
            Self::C128 => 2 * count,
            Self::C64 => (2 * count).div_ceil(3),
            _ => count.div_ceil(3),
        }
    }
}

/// What a kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `h[t] = a[t] h[t-1] + b[t]`.
    Scan,
    /// The gradient of [`Operation::Scan`].
    ScanAdjoint,
    /// `h[t] = a(z[t]) h[t-1] + k[t] v[t]`, `y[t] = q[t] Re(h[t])`, complex a and h.
    GateLoop,
    /// The gradient of [`Operation::GateLoop`], states computed again.
    GateLoopAdjoint,
    /// `h[t] = sigmoid(z[t]) h[t-1] + kv[t]`, `y[t] = q[t] h[t]`.
    SimpleGateLoop,
    /// The gradient of [`Operation::SimpleGateLoop`], states computed again.
    SimpleGateLoopAdjoint,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Scan,
        Self::ScanAdjoint,
        Self::GateLoop,
        Self::GateLoopAdjoint,
        Self::SimpleGateLoop,
        Self::SimpleGateLoopAdjoint,
    ];

    /// The name of the operation: of its source file, and the start of its kernels' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::ScanAdjoint => "scan_adjoint",
            Self::GateLoop => "gate_loop",
            Self::GateLoopAdjoint => "gate_loop_adjoint",
            Self::SimpleGateLoop => "simple_gate_loop",
            Self::SimpleGateLoopAdjoint => "simple_gate_loop_adjoint",
        }
    }

    /// Whether there is a kernel for this type.
    pub const fn takes(self, dtype: Dtype) -> bool {
        matches!(self, Self::Scan | Self::ScanAdjoint) || !matches!(dtype, Dtype::C64 | Dtype::C128)
    }

    /// The type of the state, of `h0`, `h_last` and their gradients.
    pub const fn state(self, dtype: Dtype) -> Dtype {
        match self {
            Self::GateLoop | Self::GateLoopAdjoint => dtype.wide().complex(),
            _ => dtype.wide(),
        }
    }

    pub(crate) fn kernel(self, dtype: Dtype) -> String {
        format!("{}_{}", self.name(), dtype.name())
    }

    /// Whether it is no adjoint.
    pub(crate) const fn is_forward(self) -> bool {
        matches!(self, Self::Scan | Self::GateLoop | Self::SimpleGateLoop)
    }

    /// Whether the kernel keeps maps of both directions.
    pub(crate) const fn recomputes(self) -> bool {
        matches!(self, Self::GateLoopAdjoint | Self::SimpleGateLoopAdjoint)
    }

    /// Arrays that a tile is found in: `ARRAYS` of the kernels.
    pub(crate) const fn arrays(self) -> usize {
        match self {
            Self::Scan => 3,
            Self::ScanAdjoint => 5,
            Self::GateLoop | Self::SimpleGateLoop => 6,
            Self::GateLoopAdjoint | Self::SimpleGateLoopAdjoint => 9,
        }
    }

    /// Bytes that a tile stages for each position and channel: `STAGE_BYTES` of the kernels.
    pub(crate) const fn staged_bytes(self, dtype: Dtype) -> usize {
        let elements = match self {
            Self::Scan => 2,
            Self::ScanAdjoint | Self::SimpleGateLoop => 3,
            Self::SimpleGateLoopAdjoint => 4,
            Self::GateLoop => 5,
            Self::GateLoopAdjoint => 6,
        };
        elements * dtype.bytes()
    }
}
