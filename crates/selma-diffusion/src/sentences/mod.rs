//! Models that turn sentences into vectors whose angles say how alike they are (arXiv 1908.10084): MPNet and BERT, such as MiniLM.

mod encoder;
mod folder;

pub use encoder::SentenceEncoder;
