"""Learn the frozen embedding E from pretraining rows with a vanilla CTR model."""

from mfn.job import main
from mfn.pretraining.embeddings import pretrain_embeddings

if __name__ == "__main__":
    main(pretrain_embeddings)
