# Short names for the scripts. `make test ARGS="tests/unit -k money"` passes arguments on.
.DEFAULT_GOAL := help
.PHONY: help start stop status logs test faults benchmark

help:
	@echo 'make start      start the whole system; ARGS=--detach returns once it is healthy'
	@echo 'make stop       stop it'
	@echo 'make status     a line per process: name, state, pid'
	@echo 'make logs       the last lines of the logs; ARGS="order_service -f" follows one of them'
	@echo 'make test       lint, types, import rules and all tests; ARGS=tests/unit runs some of them'
	@echo 'make faults     everything with the whole fault matrix (half an hour)'
	@echo 'make benchmark  measure the system; ARGS=--quick takes a minute'

start:
	./start-services.sh $(ARGS)

stop status logs:
	./start-services.sh $@ $(ARGS)

test:
	./run-tests.sh $(ARGS)

faults:
	./run-tests.sh --faults $(ARGS)

benchmark:
	./run-benchmarks.sh $(ARGS)
