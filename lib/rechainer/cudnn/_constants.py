"""The names of ``cupy.cuda.cudnn`` that Chainer uses; values of cuDNN 9's headers."""

VALUES = {
    # cudnnTensorFormat_t
    "CUDNN_TENSOR_NCHW": 0,
    "CUDNN_TENSOR_NHWC": 1,
    # cudnnActivationMode_t
    "CUDNN_ACTIVATION_SIGMOID": 0,
    "CUDNN_ACTIVATION_RELU": 1,
    "CUDNN_ACTIVATION_TANH": 2,
    "CUDNN_ACTIVATION_CLIPPED_RELU": 3,
    # cudnnPoolingMode_t
    "CUDNN_POOLING_MAX": 0,
    "CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING": 1,
    "CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING": 2,
    "CUDNN_POOLING_MAX_DETERMINISTIC": 3,
    # cudnnSoftmaxAlgorithm_t, cudnnSoftmaxMode_t
    "CUDNN_SOFTMAX_ACCURATE": 1,
    "CUDNN_SOFTMAX_LOG": 2,
    "CUDNN_SOFTMAX_MODE_CHANNEL": 1,
    # cudnnBatchNormMode_t, cudnnBatchNormOps_t
    "CUDNN_BATCHNORM_PER_ACTIVATION": 0,
    "CUDNN_BATCHNORM_SPATIAL": 1,
    "CUDNN_BATCHNORM_SPATIAL_PERSISTENT": 2,
    "CUDNN_BATCHNORM_OPS_BN": 0,
    "CUDNN_BATCHNORM_OPS_BN_ACTIVATION": 1,
    "CUDNN_BATCHNORM_OPS_BN_ADD_ACTIVATION": 2,
    "CUDNN_BN_MIN_EPSILON": 0.0,
    # cudnnNanPropagation_t
    "CUDNN_NOT_PROPAGATE_NAN": 0,
    # asked for at import by functions that then go without cuDNN
    "CUDNN_SAMPLER_BILINEAR": 0,
    "CUDNN_UNIDIRECTIONAL": 0,
    "CUDNN_BIDIRECTIONAL": 1,
    "CUDNN_RNN_RELU": 0,
    "CUDNN_RNN_TANH": 1,
    "CUDNN_LSTM": 2,
    "CUDNN_GRU": 3,
    "CUDNN_LINEAR_INPUT": 0,
}

#: cudnnDataType_t by NumPy's name.
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
