"""Enhance a recording: analyse, find a mask, render, certify, write."""
