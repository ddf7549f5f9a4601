"""Score the run date's test rows with every trained model."""

from mfn.job import main
from mfn.serving.predict import predict

if __name__ == "__main__":
    main(predict)
