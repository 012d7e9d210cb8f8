#!/bin/sh
echo node $1 of $FANOUT_NAME
