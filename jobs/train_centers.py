"""Learn the interest centers C from histories and the embedding E (Algorithm 1)."""

from mfn.job import main
from mfn.pretraining.centers import train_centers

if __name__ == "__main__":
    main(train_centers)
