"""Captioners: from annotations to words. One file for each paper; all have the interface in captioners/contract.py."""

from satnp.captioners import (
    adaptive,
    att_lstm,
    glstm,
    log_bilinear,
    lrcn,
    m_rnn,
    neural_baby_talk,
    neuraltalk,
    s2vt,
    sca_cnn,
    show_and_tell,
    show_attend_tell,
    top_down,
)

CAPTIONERS = {
    "show_attend_tell": show_attend_tell,
    "show_and_tell": show_and_tell.captioner,
    "neuraltalk": neuraltalk.captioner,
    "log_bilinear": log_bilinear.captioner,
    "m_rnn": m_rnn.captioner,
    "lrcn": lrcn.captioner,
    "glstm": glstm.captioner,
    "att_lstm": att_lstm.captioner,
    "adaptive": adaptive.captioner,
    "top_down": top_down.captioner,
    "sca_cnn": sca_cnn.captioner,
    "neural_baby_talk": neural_baby_talk.captioner,
    "s2vt": s2vt.captioner,
}
