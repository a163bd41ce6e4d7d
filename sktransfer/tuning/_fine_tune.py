"""Fine-tuning of pre-trained networks, as scikit-learn estimators on skorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array

from sktransfer.tuning._base import BaseFineTune
from sktransfer.tuning._unlabelled import warn_of_transduction
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional
from sktransfer.utils._validation import check_labels, encode_labels

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class FineTuneClassifier(ClassifierMixin, BaseFineTune):
    """Fine-tune a pre-trained network, with a new head, for classification.

    Parameters
    ----------
    network : TorchFeatureExtractor, ZooTuning, torch.nn.Module, callable or str
        The pre-trained network: an extractor, whose features the head reads, or
        anything that a :class:`~sktransfer.feature_extraction.TorchFeatureExtractor`
        can be made from. A copy is trained.
    head_init : {"random", "linear_probe"}, default="random"
        Where the head starts: ``"linear_probe"`` is the best linear head on the
        features before tuning; see the notes.
    penalty : BasePenalty, default=None
        Regularizer, such as :class:`BayesianTuning` or :class:`FeatureDistillation`,
        which transfer knowledge from teachers, or :class:`L2SP`, which stays close to
        the start. None is plain fine-tuning.
    max_epochs : int or "auto", default="auto"
        Number of passes over the labelled samples. ``"auto"`` is 20, or as many as make
        400 steps: few samples need many passes.
    lr : float, default=0.03
        Initial learning rate of the pre-trained parameters.
    head_lr_factor : float, default=10
        Factor of the learning rate for the head and for what a penalty learns.
    optimizer : {"sgd", "adamw"} or callable, default="sgd"
        ``"sgd"`` has Nesterov momentum 0.9. A callable takes parameter groups, `lr` and
        `weight_decay`, as the classes of :mod:`torch.optim` do.
    clip_grad_norm : float or None, default=1.0
        Largest norm of the gradient of all parameters together; longer ones are scaled
        down to it. It keeps early steps from destroying a network that has no
        normalisation. None leaves gradients as they are.
    weight_decay : float, default=5e-3
    schedule : {"cosine", "constant"} or callable, default="cosine"
        Schedule of the learning rates, step by step. A callable takes the optimiser and
        the number of steps, and returns a scheduler of
        :mod:`torch.optim.lr_scheduler` or None.
    batch_size : int or "auto", default="auto"
        Number of labelled samples in a batch. ``"auto"`` is an eighth of all, at least
        16 and at most 64.
    accumulate_grad_batches : int, default=1
        Number of batches whose gradients make one step of the optimiser, as one batch
        of all their samples would, save for batch normalisation. The last group of an
        epoch may be smaller.
    unlabelled_ratio : float, default=2
        How many unlabelled samples join each labelled one in a batch, if any are given
        to `fit` and the penalty learns from them. An epoch is a pass over the labelled
        samples.
    validation_fraction : float, default=None
        Fraction of the samples to set apart, stratified. The history then has their
        loss without penalty as ``valid_loss`` and their accuracy as ``valid_acc``.
    n_iter_no_change : int, default=None
        Stop when ``valid_loss`` has not decreased for this many epochs, and restore the
        best weights, as :class:`skorch.callbacks.EarlyStopping` does. None trains for
        `max_epochs`.
    augment : callable, default=None
        Applied to the raw samples of every training batch: an array if X is one, else a
        list; of file paths it may return images. It is repeatable if it draws from
        torch's random numbers. Teachers see augmented samples, so they have to run in
        every epoch.
    callbacks : list, default=None
        Callbacks of skorch. One that raises KeyboardInterrupt, as skorch's do, stops
        training; Ctrl-C is always passed on. With an ``LRScheduler`` set
        ``schedule="constant"``; step by step, it counts steps of the optimiser.
    checkpoint_dir : str or path, default=None
        Folder for the state of training, saved after every epoch. The same call with
        the same data resumes from it, or returns at once if training was finished. Of
        `callbacks` it keeps the attributes that end in "_", as skorch names them, if
        they are values or have a ``state_dict``. Every set of parameters and data has
        its own file, so a grid search can use one folder. Callbacks are identified by
        their parameters, file paths among the samples also by the files' size and time.
    mixed_precision : bool or {"bfloat16", "float16", "auto"}, default="auto"
        The type of autocast; the weights stay in float32. True is bfloat16, which
        ``"auto"`` uses on CUDA devices that support it. In float16 the loss is scaled,
        and steps whose gradients overflow are skipped; an epoch without any finite loss
        is an error.
    num_workers : int, default=0
        Number of processes that read, augment and preprocess batches while the network
        trains, as in :class:`torch.utils.data.DataLoader`; also used in predictions. 0
        does so in this process, as do all threads but the main one. They start anew in
        every epoch, without the weights.
        The batches are the same for any number, except for what `augment` or a data set
        draws at random: torch seeds Python, NumPy and itself in each worker from
        `random_state`; other generators start again in every worker and epoch.
    device : str, default="auto"
        Where to train, as torch names it; ``"auto"`` is the first available of "cuda",
        "mps" and "cpu".
    random_state : int, RandomState instance or None, default=None
        Controls the head, the order of samples, the validation split and dropout. With
        an int, runs on a CPU are repeatable. Torch's global state is left unchanged.
    verbose : int, default=0
        If positive, skorch prints a line per epoch. For a progress bar use
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net.
    history_ : skorch.history.History
        One record per epoch: ``train_loss`` (with penalty), ``train_penalty`` (before
        its weight), ``valid_loss``, ``valid_acc`` and times.
    module_ : torch.nn.Module
        The tuned network, in evaluation mode. Its own head, if it has one, is not used.
    head_ : torch.nn.Linear
        The head, which reads the features.
    penalty_ : torch.nn.Module or None
        The term of the penalty, if it is a module.
    n_unlabelled_ : int
        Number of unlabelled samples that were used.
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.

    See Also
    --------
    FineTuneRegressor : The same for numbers.
    BayesianTuning : The penalty of B-Tuning.
    ZooTuning : Mixes networks of one structure.
    rank_and_tune : Ranks and tunes in one call.

    Notes
    -----
    The loss is cross-entropy plus ``penalty.weight`` times the penalty. Batch
    normalisation is in training mode. Parameters that do not require gradients stay
    frozen.

    With ``head_init="linear_probe"`` the head starts at the posterior means of
    ``LogMEClassifier(prior="shared", fit_intercept=True, leave_one_out=True)`` for the
    features of the training part in evaluation mode, divided by its `temperature_`: the
    probabilities are calibrated before the first step. A random head distorts good
    features while it is learnt [2]_.

    Parameters of the penalty are ``penalty__weight`` and so on in a grid search. The
    teachers' LogME is then fitted to every training fold, because scikit-learn clones
    estimators before it fits them.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.
    .. [2] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang, "Fine-Tuning can Distort
       Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import FineTuneClassifier
    >>> X, y = load_dataset(return_X_y=True)
    >>> ((_, network),) = load_zoo(["plain-handwritten"])
    >>> model = FineTuneClassifier(network, max_epochs=10, lr=0.03, batch_size=25)
    >>> model.set_params(random_state=0).fit(X[:200], y[:200]).score(X[200:], y[200:])
    0.9...
    >>> len(model.history_)
    10
    """

    _criterion = torch.nn.CrossEntropyLoss

    def _encode(self, y: Any) -> tuple[np.ndarray, torch.Tensor, np.ndarray]:
        y = check_labels(y, y)
        self.classes_, codes = encode_labels(y, y)
        self._loss_of_constant = entropy(np.bincount(codes))
        return y, torch.from_numpy(codes), self.classes_

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class.

        Parameters
        ----------
        X : raw samples

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        codes = self._outputs(X).argmax(axis=1)
        return self.classes_[codes]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the given samples.

        Parameters
        ----------
        X : raw samples
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float

        Warns
        -----
        TransductiveScoreWarning
            If some of the samples were among the unlabelled ones given to `fit`.
        """
        warn_of_transduction(X, self)
        return super().score(X, y, sample_weight)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probabilities of the classes.

        Parameters
        ----------
        X : raw samples

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return softmax(self._outputs(X), axis=1)


class FineTuneRegressor(MultiOutputMixin, RegressorMixin, BaseFineTune):
    """Fine-tune a pre-trained network, with a new head, for regression.

    Parameters
    ----------
    network : TorchFeatureExtractor, ZooTuning, torch.nn.Module, callable or str
        See :class:`FineTuneClassifier`.
    head_init : {"random", "linear_probe"}, default="random"
        Where the head starts: ``"linear_probe"`` is
        ``LogME(fit_intercept=True)`` of the standardised targets on the features before
        tuning.
    penalty, max_epochs, lr, head_lr_factor, optimizer, clip_grad_norm
        See :class:`FineTuneClassifier`.
    weight_decay, schedule, batch_size, accumulate_grad_batches, unlabelled_ratio
        See :class:`FineTuneClassifier`.
    validation_fraction
        See :class:`FineTuneClassifier`; the history has no ``valid_acc``.
    n_iter_no_change, augment, callbacks, checkpoint_dir, mixed_precision, num_workers
        See :class:`FineTuneClassifier`.
    device, random_state, verbose
        See :class:`FineTuneClassifier`.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net.
    history_ : skorch.history.History
        One record per epoch: ``train_loss`` (with penalty), ``train_penalty`` (before
        its weight), ``valid_loss`` and times.
    module_ : torch.nn.Module
        The tuned network, in evaluation mode. Its own head, if it has one, is not used.
    head_ : torch.nn.Linear
        The head, which reads the features and gives standardised targets.
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Means and standard deviations of the targets.
    penalty_ : torch.nn.Module or None
        The term of the penalty, if it is a module.
    n_unlabelled_ : int
        Number of unlabelled samples that were used.

    See Also
    --------
    FineTuneClassifier : The same for labels.

    Notes
    -----
    The network learns standardised targets: the loss is the mean squared error in units
    of the targets' variances, plus ``penalty.weight`` times the penalty.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import FineTuneRegressor
    >>> X, _ = load_dataset(return_X_y=True)
    >>> ink = X.mean(axis=(1, 2, 3)) / X.mean() - 1
    >>> ((_, network),) = load_zoo(["plain-emoji"])
    >>> model = FineTuneRegressor(network, max_epochs=2, random_state=0)
    >>> model.fit(X[:200], ink[:200]).predict(X[200:]).shape
    (1597,)
    """

    _criterion = torch.nn.MSELoss

    def _encode(self, y: Any) -> tuple[np.ndarray, torch.Tensor, None]:
        y = check_array(to_numpy(y), ensure_2d=False, dtype=np.float64, input_name="y")
        self._is_column = y.ndim == 1
        columns = y.reshape(len(y), -1)
        scaler = StandardScaler().fit(columns)
        self.target_mean_, self.target_scale_ = scaler.mean_, scaler.scale_
        values = scaler.transform(columns)
        self._loss_of_constant = np.mean(values**2)
        return y, torch.from_numpy(values.astype(np.float32)), None

    def predict(self, X: Any) -> np.ndarray:
        """Predict the targets.

        Parameters
        ----------
        X : raw samples

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        outputs = self._outputs(X) * self.target_scale_ + self.target_mean_
        return outputs[:, 0] if self._is_column else outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 on the given samples.

        Parameters
        ----------
        X : raw samples
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float

        Warns
        -----
        TransductiveScoreWarning
            If some of the samples were among the unlabelled ones given to `fit`.
        """
        warn_of_transduction(X, self)
        return super().score(X, y, sample_weight)
