//! Which instructions the processor has, found out once, at run time.

/// Instruction sets the kernels are written for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust: the oracle of every other level, and all that other architectures have.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, besides all of [`Level::Avx2`].
    Avx512,
}

impl Level {
    /// Every level, ascending.
    pub const ALL: [Level; 3] = [Level::Scalar, Level::Avx2, Level::Avx512];

    /// The name by which a level is asked for and printed.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// The level of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Proof that this processor has the instructions of a [`Level`], and of which extensions to it.
///
/// Only detection makes one, so a kernel that is handed a `Cpu` may run that level's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    level: Level,
    vnni: bool,
    bf16: bool,
}

impl Cpu {
    /// The best level this machine has.
    pub fn detect() -> Cpu {
        detect()
    }

    /// The same processor held to `level` at most; what it lacks it does not gain.
    #[must_use]
    pub fn at_most(self, level: Level) -> Cpu {
        let level = self.level.min(level);
        let extended = level == self.level;
        Cpu { level, vnni: self.vnni && extended, bf16: self.bf16 && extended }
    }

    /// The level that is used.
    pub fn level(self) -> Level {
        self.level
    }

    /// Whether products of bytes have an instruction (AVX-512 VNNI, or AVX-VNNI at [`Level::Avx2`]).
    pub fn has_vnni(self) -> bool {
        self.vnni
    }

    /// Whether products of bfloat16 have an instruction (AVX512-BF16).
    pub fn has_bf16(self) -> bool {
        self.bf16
    }

    /// One `Cpu` for each level this machine has, ascending: what agreement tests walk through.
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
    fn a_forced_level_never_exceeds_what_the_machine_has() {
        for level in Level::ALL {
            let held = Cpu::detect().at_most(level);
            assert!(held.level() <= level);
            assert!(level == Level::Avx512 || !held.has_bf16(), "bfloat16 belongs to AVX-512");
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Cpu::each_level().next().map(Cpu::level), Some(Level::Scalar));
    }
}
