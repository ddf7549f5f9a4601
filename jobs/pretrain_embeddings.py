"""Learn the start of the trainable embedding, and the frozen E, from the pretraining rows."""

from mfn.job import main
from mfn.pretraining.embeddings import pretrain_embeddings

if __name__ == "__main__":
    main(pretrain_embeddings)
