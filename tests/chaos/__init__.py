"""Tests of the chaos harness: what judges has to be judged first."""
