"""The layers. Each equation is a pair of plain functions, forward and backward."""

from satnp.layers.activations import (
    relu6_backward,
    relu6_forward,
    relu_backward,
    relu_forward,
    scaled_tanh_backward,
    scaled_tanh_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from satnp.layers.affine import affine_backward, affine_forward, rows
from satnp.layers.attention import (
    additive_keys_backward,
    additive_look_backward,
    additive_query_backward,
    additive_scores_backward,
    additive_scores_forward,
    additive_steps_backward,
    additive_steps_forward,
    context_backward,
    context_forward,
    context_weights_backward,
    dot_keys_backward,
    dot_query_backward,
    dot_scores_backward,
    dot_scores_forward,
    exponentials,
    soft_attention,
)
from satnp.layers.beams import beam_additive_scores, beam_products
from satnp.layers.cbam import (
    cbam_backward,
    cbam_forward,
    channel_gate_backward,
    channel_gate_forward,
    location_gate_backward,
    location_gate_forward,
)
from satnp.layers.conv import (
    conv2d_backward,
    conv2d_backward_input,
    conv2d_backward_weights,
    conv2d_forward,
    conv2d_relu6_backward,
    conv2d_relu6_forward,
    conv2d_relu_backward,
    conv2d_relu_forward,
    expand_relu_backward,
    expand_relu_forward,
)
from satnp.layers.deep_output import deep_output_backward, deep_output_forward, tanh_of_sum
from satnp.layers.depthwise import (
    depthwise_backward,
    depthwise_forward,
    depthwise_relu6_backward,
    depthwise_relu6_forward,
)
from satnp.layers.dropout import dropout_backward, dropout_forward, dropout_mask
from satnp.layers.embedding import embedding_backward, embedding_forward
from satnp.layers.gate import gate_backward, gate_backward_preactivation, gate_forward
from satnp.layers.initial_state import initial_state_backward, initial_state_forward
from satnp.layers.inverted_residual import (
    inverted_residual_backward,
    inverted_residual_forward,
    separable_backward,
    separable_forward,
)
from satnp.layers.lstm import lstm_cell_backward, lstm_cell_forward
from satnp.layers.lstm_without_tanh import lstm_cell_without_tanh_backward, lstm_cell_without_tanh_forward
from satnp.layers.mean import masked_mean_backward, masked_mean_forward, mean_annotation_backward, mean_annotation_forward
from satnp.layers.noisy_or import (
    noisy_or_backward,
    noisy_or_forward,
    noisy_or_loss_backward,
    noisy_or_loss_forward,
)
from satnp.layers.penalty import doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.pool import average_pool_backward, average_pool_forward, max_pool_backward, max_pool_forward
from satnp.layers.ranking import (
    alignment_backward,
    alignment_forward,
    normalise_backward,
    normalise_forward,
    ranking_loss_backward,
    ranking_loss_forward,
)
from satnp.layers.slots import slots_backward, slots_forward
from satnp.layers.smooth_l1 import smooth_l1_backward, smooth_l1_forward
from satnp.layers.softmax import (
    SoftmaxCache,
    cross_entropy_backward,
    cross_entropy_forward,
    log_softmax,
    softmax,
    softmax_backward,
    softmax_forward,
)
from satnp.layers.vocabulary import (
    vocabulary_backward,
    vocabulary_backward_factors,
    vocabulary_forward,
    word_loss_backward,
    word_loss_forward,
)
