"""Train a plain CTR model on pretraining rows; publish its embedding E, which is then frozen."""

from mfn.job import main
from mfn.pretraining.embeddings import pretrain_embeddings

if __name__ == "__main__":
    main(pretrain_embeddings)
