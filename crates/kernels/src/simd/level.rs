//! Detection of the instruction sets of the processor at run time.

/// Instruction sets the kernels are written for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust: the reference for all other levels, and the only level on other architectures.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL in addition to [`Level::Avx2`].
    Avx512,
}

impl Level {
    /// Every level, ascending.
    pub const ALL: [Level; 3] = [Level::Scalar, Level::Avx2, Level::Avx512];

    /// The name of the level in settings and output.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// The level with this name.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Proof that this processor has the instructions of a [`Level`] and certain extensions.
///
/// Only detection creates one, so a kernel that receives a `Cpu` may run the code of that level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    level: Level,
    vnni: bool,
    bf16: bool,
}

impl Cpu {
    /// The best level of this machine.
    pub fn detect() -> Cpu {
        detect()
    }

    /// The same processor limited to `level`; never raises the level.
    #[must_use]
    pub fn at_most(self, level: Level) -> Cpu {
        let level = self.level.min(level);
        let extended = level == self.level;
        Cpu { level, vnni: self.vnni && extended, bf16: self.bf16 && extended }
    }

    /// The level to use.
    pub fn level(self) -> Level {
        self.level
    }

    /// Whether there are instructions for products of bytes (AVX-512 VNNI, or AVX-VNNI at [`Level::Avx2`]).
    pub fn has_vnni(self) -> bool {
        self.vnni
    }

    /// Whether there are instructions for products of bfloat16 (AVX512-BF16).
    pub fn has_bf16(self) -> bool {
        self.bf16
    }

    /// One `Cpu` for each level of this machine, ascending, for tests that compare the levels.
    pub fn each_level() -> impl Iterator<Item = Cpu> {
        let best = detect();
        Level::ALL.into_iter().filter(move |level| *level <= best.level).map(move |level| best.at_most(level))
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Cpu {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512, avx2) {
        (true, _) => Cpu {
            level: Level::Avx512,
            vnni: is_x86_feature_detected!("avx512vnni"),
            bf16: is_x86_feature_detected!("avx512bf16"),
        },
        (_, true) => Cpu { level: Level::Avx2, vnni: is_x86_feature_detected!("avxvnni"), bf16: false },
        _ => Cpu { level: Level::Scalar, vnni: false, bf16: false },
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Cpu {
    Cpu { level: Level::Scalar, vnni: false, bf16: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_level_never_exceeds_the_level_of_the_machine() {
        for level in Level::ALL {
            let limited = Cpu::detect().at_most(level);
            assert!(limited.level() <= level);
            assert!(level == Level::Avx512 || !limited.has_bf16(), "bfloat16 belongs to AVX-512");
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Cpu::each_level().next().map(Cpu::level), Some(Level::Scalar));
    }
}
